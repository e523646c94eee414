//! `GET /openapi.json`: what this server understands, for programs that make clients and tests.

use axum::response::Response;
use serde_json::Value;

use crate::error::json_response;

const DOCUMENT: &str = include_str!("openapi.json");

pub(crate) async fn document() -> Response {
    json_response(&read())
}

fn read() -> Value {
    let mut document: Value = serde_json::from_str(DOCUMENT).unwrap_or_default();
    document["info"]["version"] = env!("CARGO_PKG_VERSION").into();
    document
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// References that lead nowhere.
    fn dangling<'a>(root: &Value, value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(fields) => fields.iter().for_each(|(key, value)| match value.as_str() {
                Some(reference) if key == "$ref" => {
                    if root.pointer(reference.trim_start_matches('#')).is_none() {
                        found.push(reference);
                    }
                }
                _ => dangling(root, value, found),
            }),
            Value::Array(items) => items.iter().for_each(|item| dangling(root, item, found)),
            _ => {}
        }
    }

    #[test]
    fn the_document_has_all_routes_and_no_others() {
        let document = read();
        let mut lost = Vec::new();
        dangling(&document, &document, &mut lost);
        assert_eq!(lost, Vec::<&str>::new());
        let known: BTreeSet<String> = document["paths"].as_object().expect("paths").keys().cloned().collect();
        let source = include_str!("lib.rs");
        let routes: BTreeSet<String> = source
            .split(".route(\"")
            .skip(1)
            .filter_map(|rest| rest.split('"').next())
            // Those of the page are for browsers.
            .filter(|path| *path != "/" && !path.starts_with("/assets/"))
            .map(|path| path.replace("{*model}", "{id}"))
            .collect();
        assert_eq!(known, routes);
    }

    #[test]
    fn the_document_has_the_tools_of_responses() {
        let document = read();
        let schemas = &document["components"]["schemas"];
        let kind = |schema: &str| schemas[schema]["properties"]["type"]["enum"][0].clone();
        assert_eq!(
            (kind("ResponsesFunction"), kind("ResponsesCustomTool")),
            ("function".into(), "custom".into())
        );
        let fields = &schemas["ResponsesRequest"]["properties"];
        assert_eq!(fields["tools"]["anyOf"][0]["items"]["$ref"], "#/components/schemas/ResponsesTool");
        assert!(fields["tool_choice"].to_string().contains("custom"));
    }
}
