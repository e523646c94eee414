//! Source text to syntax tree.
//!
//! The lexer and the parser are minijinja's; this is the only file that knows them. Their tree is translated into one of
//! our own, which owns its strings, so that a template is parsed once and can be kept. The length of every tag is bounded
//! before the parser sees the source, and the depth while translating: no source text can overflow the stack.

use std::collections::HashSet;
use std::sync::Arc;

use minijinja::machinery::ast;
use minijinja::machinery::{Span, Token, parse as parse_source, tokenize};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::ValueKind;

use super::names::{Special, special};
use super::value::Value;

/// Tokens between the delimiters of one tag. The longest in published templates have some 200.
const MAX_TAG_TOKENS: usize = 2000;
/// `elif` branches in one template: each is one level deeper.
const MAX_ELIF: usize = 200;
/// Nesting of statements and expressions.
const MAX_DEPTH: usize = 150;

/// What a `{% generation %}` block calls, for the parser.
const GENERATION: &str = "__pippin_generation";

/// Why a source is no template: line and reason.
pub(crate) type Refusal = (u32, String);
pub(crate) type Name = Arc<str>;
/// Statements, each with its line.
pub(crate) type Block = Vec<(u32, Stmt)>;

#[derive(Debug)]
pub(crate) enum Stmt {
    Raw(Name),
    Emit(Expr),
    For(Arc<For>),
    If { test: Expr, then: Block, other: Block },
    With { assignments: Vec<(Target, Expr)>, body: Block },
    Set { target: Target, value: Expr },
    SetBlock { target: Target, filter: Option<Expr>, body: Block },
    FilterBlock { filter: Expr, body: Block },
    Macro(Name, Arc<Macro>),
    CallBlock { call: Expr, caller: Arc<Macro> },
    Do(Expr),
    Break,
    Continue,
}

#[derive(Debug)]
pub(crate) struct For {
    pub(crate) target: Target,
    pub(crate) iter: Expr,
    pub(crate) filter: Option<Expr>,
    pub(crate) body: Block,
    pub(crate) otherwise: Block,
    /// Whether the loop may be called: `loop(…)`.
    pub(crate) recursive: bool,
}

#[derive(Debug)]
pub(crate) struct Macro {
    /// Absent for the body of a call block.
    pub(crate) name: Option<Name>,
    pub(crate) parameters: Vec<Name>,
    /// The defaults of the last parameters.
    pub(crate) defaults: Vec<Expr>,
    pub(crate) body: Block,
    /// What it is given besides its parameters, because its body uses it.
    pub(crate) special: Special,
}

/// The left side of an assignment.
#[derive(Debug)]
pub(crate) enum Target {
    Name(Name),
    Attribute(Expr, Name),
    Tuple(Vec<Target>),
}

#[derive(Debug)]
pub(crate) enum Expr {
    Const(Value),
    Var(Name),
    List(Vec<Expr>),
    Tuple(Vec<Expr>),
    Dict(Vec<(Expr, Expr)>),
    Attr(Box<Expr>, Name),
    Item(Box<Expr>, Box<Expr>),
    Slice(Box<Expr>, [Option<Box<Expr>>; 3]),
    Not(Box<Expr>),
    Neg(Box<Expr>),
    And(Box<Expr>, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
    Binary(Operator, Box<Expr>, Box<Expr>),
    /// The operands of a chain of `~`.
    Concat(Vec<Expr>),
    Compare(Box<Expr>, Vec<(Comparison, Expr)>),
    If(Box<[Expr; 2]>, Option<Box<Expr>>),
    /// The operand is absent where a block is filtered.
    Filter(Name, Option<Box<Expr>>, Vec<Arg>),
    Test(Name, Box<Expr>, Vec<Arg>),
    Call(Box<Expr>, Vec<Arg>, u32),
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Operator {
    Add,
    Sub,
    Mul,
    Div,
    FloorDiv,
    Rem,
    Pow,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Comparison {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    In,
    NotIn,
}

#[derive(Debug)]
pub(crate) enum Arg {
    Positional(Expr),
    Named(Name, Expr),
    Splat(Expr),
    NamedSplat(Expr),
}

/// Parses a template as `transformers` does: `trim_blocks`, `lstrip_blocks`, loop controls and `{% generation %}`.
pub(crate) fn parse(source: &str) -> Result<Block, Refusal> {
    let source = adapt(source);
    // The defaults for everything else are Jinja's; building from default delimiters cannot fail.
    let syntax = SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build()
        .map_err(|error| (1, error.to_string()))?;
    check_tags(&source, &syntax)?;
    match parse_source(&source, "chat template", syntax).map_err(refusal)? {
        ast::Stmt::Template(template) => Translator::default().block(&template.children),
        other => Translator::default().block(&[other]),
    }
}

fn refusal(error: minijinja::Error) -> Refusal {
    let line = error.line().and_then(|line| u32::try_from(line).ok()).unwrap_or(1);
    (line, error.detail().map_or_else(|| error.kind().to_string(), str::to_owned))
}

fn line_of(span: Span) -> u32 {
    span.start_line.into()
}

fn check_tags(source: &str, syntax: &SyntaxConfig) -> Result<(), Refusal> {
    let (mut length, mut elif) = (0, 0);
    for token in tokenize(source, false, syntax.clone()) {
        let (token, span) = token.map_err(refusal)?;
        length += 1;
        match token {
            Token::TemplateData(_) | Token::BlockStart | Token::VariableStart => length = 0,
            Token::Ident("elif") => elif += 1,
            _ => {}
        }
        if length > MAX_TAG_TOKENS {
            return Err((line_of(span), format!("a tag has more than {MAX_TAG_TOKENS} tokens")));
        }
        if elif > MAX_ELIF {
            return Err((line_of(span), format!("more than {MAX_ELIF} elif branches")));
        }
    }
    Ok(())
}

/// Rewrites the few things in which Jinja, as `transformers` sets it up, differs from what the parser takes:
///
/// - Line ends of all kinds are newlines.
/// - `{% generation %} … {% endgeneration %}` marks, for training, the text that the assistant wrote. In Jinja it is a call
///   block; the name that is called here is one that the translator knows.
/// - `trim_blocks` does not remove the newline after `{% raw %}`. The parser removes it, so it gets two.
fn adapt(source: &str) -> String {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let mut result = String::with_capacity(source.len());
    let mut rest = source.as_str();
    let mut raw = false;
    let mut searched = 0;
    while let Some(start) = rest[searched..].find('{').map(|start| searched + start) {
        if !(rest[start..].starts_with("{%") || (rest[start..].starts_with("{#") && !raw)) {
            searched = start + 1;
            continue;
        }
        searched = 0;
        result.push_str(&rest[..start]);
        rest = &rest[start..];
        let comment = rest.starts_with("{#");
        let close = if comment { "#}" } else { "%}" };
        let Some(end) = rest[2..].find(close).map(|end| end + 2) else { break };
        let (tag, after) = rest.split_at(end + 2);
        let inner = tag[2..end].trim_matches(['-', '+']).trim();
        rest = after;
        match inner {
            _ if comment => result.push_str(tag),
            "endraw" => {
                raw = false;
                result.push_str(tag);
            }
            _ if raw => result.push_str(tag),
            "raw" => {
                raw = true;
                result.push_str(tag);
                if !tag.ends_with("-%}") && rest.starts_with('\n') {
                    result.push('\n');
                }
            }
            "generation" => {
                result.push_str(&tag.replacen("generation", &format!("call {GENERATION}()"), 1));
            }
            "endgeneration" => result.push_str(&tag.replacen("endgeneration", "endcall", 1)),
            _ => result.push_str(tag),
        }
    }
    result.push_str(rest);
    result
}

#[derive(Default)]
struct Translator {
    depth: usize,
    /// Whether `break` and `continue` have a loop to end. The parser asks the same, but takes a loop's `else` for a part of
    /// the loop.
    in_loop: bool,
}

impl Translator {
    fn enter(&mut self, span: Span) -> Result<(), Refusal> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err((line_of(span), format!("nested more than {MAX_DEPTH} levels deep")));
        }
        Ok(())
    }

    /// Translates something where `break` and `continue` are allowed or not.
    fn within<T>(&mut self, in_loop: bool, translate: impl FnOnce(&mut Self) -> T) -> T {
        let before = std::mem::replace(&mut self.in_loop, in_loop);
        let result = translate(self);
        self.in_loop = before;
        result
    }

    fn loop_control(&self, span: Span, name: &str, stmt: Stmt) -> Result<Stmt, Refusal> {
        match self.in_loop {
            true => Ok(stmt),
            false => Err((line_of(span), format!("`{name}` must be placed inside a loop"))),
        }
    }

    fn block(&mut self, statements: &[ast::Stmt<'_>]) -> Result<Block, Refusal> {
        statements.iter().map(|stmt| self.stmt(stmt)).collect()
    }

    fn stmt(&mut self, stmt: &ast::Stmt<'_>) -> Result<(u32, Stmt), Refusal> {
        let (span, translated) = match stmt {
            ast::Stmt::EmitRaw(raw) => (raw.span(), Stmt::Raw(raw.raw.into())),
            ast::Stmt::EmitExpr(emit) => (emit.span(), Stmt::Emit(self.expr(&emit.expr)?)),
            ast::Stmt::ForLoop(node) => {
                self.enter(node.span())?;
                let result = For {
                    target: self.target(&node.target)?,
                    iter: self.expr(&node.iter)?,
                    filter: node.filter_expr.as_ref().map(|filter| self.expr(filter)).transpose()?,
                    body: self.within(true, |this| this.block(&node.body))?,
                    // Belongs to the loop outside. A recursive loop is a function, which ends with its `else`.
                    otherwise: self
                        .within(self.in_loop && !node.recursive, |this| this.block(&node.else_body))?,
                    recursive: node.recursive,
                };
                self.depth -= 1;
                (node.span(), Stmt::For(Arc::new(result)))
            }
            ast::Stmt::IfCond(node) => {
                self.enter(node.span())?;
                let result = Stmt::If {
                    test: self.expr(&node.expr)?,
                    then: self.block(&node.true_body)?,
                    other: self.block(&node.false_body)?,
                };
                self.depth -= 1;
                (node.span(), result)
            }
            ast::Stmt::WithBlock(node) => {
                self.enter(node.span())?;
                let assignments = node.assignments.iter();
                let assignments = assignments
                    .map(|(target, value)| Ok((self.target(target)?, self.expr(value)?)))
                    .collect::<Result<_, Refusal>>()?;
                let body = self.block(&node.body)?;
                self.depth -= 1;
                (node.span(), Stmt::With { assignments, body })
            }
            ast::Stmt::Set(node) => {
                (node.span(), Stmt::Set { target: self.target(&node.target)?, value: self.expr(&node.expr)? })
            }
            ast::Stmt::SetBlock(node) => {
                self.enter(node.span())?;
                let target = self.target(&node.target)?;
                let filter = node.filter.as_ref().map(|filter| self.expr(filter)).transpose()?;
                let body = self.block(&node.body)?;
                self.depth -= 1;
                (node.span(), Stmt::SetBlock { target, filter, body })
            }
            ast::Stmt::FilterBlock(node) => {
                self.enter(node.span())?;
                let result =
                    Stmt::FilterBlock { filter: self.expr(&node.filter)?, body: self.block(&node.body)? };
                self.depth -= 1;
                (node.span(), result)
            }
            ast::Stmt::Macro(node) => {
                let name: Name = node.name.into();
                let definition = self.macro_(node, Some(name.clone()), node.span())?;
                (node.span(), Stmt::Macro(name, definition))
            }
            ast::Stmt::CallBlock(node) if matches!(&node.call.expr, ast::Expr::Var(var) if var.id == GENERATION) =>
            {
                self.enter(node.span())?;
                let body = self.within(false, |this| this.block(&node.macro_decl.body))?;
                self.depth -= 1;
                (node.span(), Stmt::With { assignments: Vec::new(), body })
            }
            ast::Stmt::CallBlock(node) => {
                let call = self.call(&node.call, node.call.span())?;
                if node.call.args.iter().any(|arg| matches!(arg, ast::CallArg::Kwarg("caller", _))) {
                    let problem = "a call block gives `caller` itself; it cannot be given twice";
                    return Err((line_of(node.span()), problem.to_owned()));
                }
                let caller = self.macro_(&node.macro_decl, None, node.span())?;
                (node.span(), Stmt::CallBlock { call, caller })
            }
            ast::Stmt::Do(node) => (node.span(), Stmt::Do(self.call(&node.call, node.span())?)),
            ast::Stmt::Break(node) => (node.span(), self.loop_control(node.span(), "break", Stmt::Break)?),
            ast::Stmt::Continue(node) => {
                (node.span(), self.loop_control(node.span(), "continue", Stmt::Continue)?)
            }
            ast::Stmt::AutoEscape(node) => {
                return Err((line_of(node.span()), "`autoescape` has no use in a chat template".to_owned()));
            }
            ast::Stmt::Template(node) => {
                return Err((line_of(node.span()), "unexpected template".to_owned()));
            }
        };
        Ok((line_of(span), translated))
    }

    fn macro_(
        &mut self,
        node: &ast::Macro<'_>,
        name: Option<Name>,
        span: Span,
    ) -> Result<Arc<Macro>, Refusal> {
        self.enter(span)?;
        let parameters = node.args.iter().map(|argument| match argument {
            ast::Expr::Var(var) => Ok(var.id.into()),
            _ => Err((line_of(span), "the parameters of a macro must be names".to_owned())),
        });
        let parameters: Vec<Name> = parameters.collect::<Result<_, _>>()?;
        let refuse = |problem: &str| Err((line_of(span), problem.to_owned()));
        if (1..parameters.len()).any(|index| parameters[..index].contains(&parameters[index])) {
            return refuse("two parameters of the macro have the same name");
        }
        let body = self.within(false, |this| this.block(&node.body))?;
        let special = special(&body);
        let required = parameters.len().saturating_sub(node.defaults.len());
        if special.caller && parameters[..required].iter().any(|name| name.as_ref() == "caller") {
            return refuse(
                "a macro that uses `caller` and has a parameter of this name must give it a default",
            );
        }
        let defaults = self.exprs(&node.defaults)?;
        self.depth -= 1;
        Ok(Arc::new(Macro { name, parameters, defaults, body, special }))
    }

    fn target(&mut self, target: &ast::Expr<'_>) -> Result<Target, Refusal> {
        self.enter(target.span())?;
        let result = match target {
            ast::Expr::Var(var) => Target::Name(var.id.into()),
            ast::Expr::GetAttr(attr) => Target::Attribute(self.expr(&attr.expr)?, attr.name.into()),
            ast::Expr::List(list) => Target::Tuple(self.targets(&list.items)?),
            ast::Expr::Tuple(tuple) => Target::Tuple(self.targets(&tuple.items)?),
            other => {
                return Err((line_of(other.span()), format!("cannot assign to a {}", other.description())));
            }
        };
        self.depth -= 1;
        Ok(result)
    }

    fn targets(&mut self, targets: &[ast::Expr<'_>]) -> Result<Vec<Target>, Refusal> {
        targets.iter().map(|target| self.target(target)).collect()
    }

    fn exprs(&mut self, exprs: &[ast::Expr<'_>]) -> Result<Vec<Expr>, Refusal> {
        exprs.iter().map(|expr| self.expr(expr)).collect()
    }

    fn boxed(&mut self, expr: &ast::Expr<'_>) -> Result<Box<Expr>, Refusal> {
        self.expr(expr).map(Box::new)
    }

    fn maybe(&mut self, expr: Option<&ast::Expr<'_>>) -> Result<Option<Box<Expr>>, Refusal> {
        expr.map(|expr| self.boxed(expr)).transpose()
    }

    fn expr(&mut self, expr: &ast::Expr<'_>) -> Result<Expr, Refusal> {
        self.enter(expr.span())?;
        let result = match expr {
            ast::Expr::Var(var) => match var.id {
                // Jinja knows both spellings of the constants.
                "true" | "True" => Expr::Const(Value::Bool(true)),
                "false" | "False" => Expr::Const(Value::Bool(false)),
                "none" | "None" => Expr::Const(Value::None),
                name => Expr::Var(name.into()),
            },
            ast::Expr::Const(constant) => Expr::Const(scalar(&constant.value, constant.span())?),
            ast::Expr::Slice(slice) => Expr::Slice(
                self.boxed(&slice.expr)?,
                [
                    self.maybe(slice.start.as_ref())?,
                    self.maybe(slice.stop.as_ref())?,
                    self.maybe(slice.step.as_ref())?,
                ],
            ),
            ast::Expr::UnaryOp(unary) => {
                let operand = self.boxed(&unary.expr)?;
                match unary.op {
                    ast::UnaryOpKind::Not => Expr::Not(operand),
                    ast::UnaryOpKind::Neg => Expr::Neg(operand),
                }
            }
            ast::Expr::BinOp(binary) => self.binary(binary)?,
            ast::Expr::Compare(compare) => {
                let operand = self.boxed(&compare.expr)?;
                let rest = compare.ops.iter().map(|step| {
                    let comparison = match step.op {
                        ast::CompareOpKind::Eq => Comparison::Eq,
                        ast::CompareOpKind::Ne => Comparison::Ne,
                        ast::CompareOpKind::Lt => Comparison::Lt,
                        ast::CompareOpKind::Lte => Comparison::Le,
                        ast::CompareOpKind::Gt => Comparison::Gt,
                        ast::CompareOpKind::Gte => Comparison::Ge,
                        ast::CompareOpKind::In => Comparison::In,
                        ast::CompareOpKind::NotIn => Comparison::NotIn,
                    };
                    Ok((comparison, self.expr(&step.expr)?))
                });
                let rest = rest.collect::<Result<_, Refusal>>()?;
                Expr::Compare(operand, rest)
            }
            ast::Expr::IfExpr(node) => Expr::If(
                Box::new([self.expr(&node.test_expr)?, self.expr(&node.true_expr)?]),
                self.maybe(node.false_expr.as_ref())?,
            ),
            ast::Expr::Filter(filter) => Expr::Filter(
                compact(filter.name),
                self.maybe(filter.expr.as_ref())?,
                self.args(&filter.args)?,
            ),
            ast::Expr::Test(test) => {
                Expr::Test(compact(test.name), self.boxed(&test.expr)?, self.args(&test.args)?)
            }
            ast::Expr::GetAttr(attr) => Expr::Attr(self.boxed(&attr.expr)?, attr.name.into()),
            ast::Expr::GetItem(item) => {
                Expr::Item(self.boxed(&item.expr)?, self.boxed(&item.subscript_expr)?)
            }
            ast::Expr::Call(call) => self.call(call, call.span())?,
            ast::Expr::List(list) => Expr::List(self.exprs(&list.items)?),
            ast::Expr::Tuple(tuple) => Expr::Tuple(self.exprs(&tuple.items)?),
            ast::Expr::Map(map) => {
                let entries = map.keys.iter().zip(&map.values);
                let entries = entries.map(|(key, value)| Ok((self.expr(key)?, self.expr(value)?)));
                Expr::Dict(entries.collect::<Result<_, Refusal>>()?)
            }
        };
        self.depth -= 1;
        Ok(result)
    }

    fn binary(&mut self, binary: &ast::BinOp<'_>) -> Result<Expr, Refusal> {
        use ast::BinOpKind as Kind;
        let operator = match binary.op {
            Kind::Concat => {
                // A long chain leans to the left; flattened, it costs no depth.
                let mut operands = vec![&binary.right];
                let mut left = &binary.left;
                while let ast::Expr::BinOp(inner) = left {
                    if !matches!(inner.op, Kind::Concat) {
                        break;
                    }
                    operands.push(&inner.right);
                    left = &inner.left;
                }
                operands.push(left);
                return Ok(Expr::Concat(
                    operands.into_iter().rev().map(|operand| self.expr(operand)).collect::<Result<_, _>>()?,
                ));
            }
            Kind::Add => Operator::Add,
            Kind::Sub => Operator::Sub,
            Kind::Mul => Operator::Mul,
            Kind::Div => Operator::Div,
            Kind::FloorDiv => Operator::FloorDiv,
            Kind::Rem => Operator::Rem,
            Kind::Pow => Operator::Pow,
            Kind::ScAnd => return Ok(Expr::And(self.boxed(&binary.left)?, self.boxed(&binary.right)?)),
            Kind::ScOr => return Ok(Expr::Or(self.boxed(&binary.left)?, self.boxed(&binary.right)?)),
            comparison => {
                let comparison = match comparison {
                    Kind::Eq => Comparison::Eq,
                    Kind::Ne => Comparison::Ne,
                    Kind::Lt => Comparison::Lt,
                    Kind::Lte => Comparison::Le,
                    Kind::Gt => Comparison::Gt,
                    Kind::Gte => Comparison::Ge,
                    _ => Comparison::In,
                };
                return Ok(Expr::Compare(
                    self.boxed(&binary.left)?,
                    vec![(comparison, self.expr(&binary.right)?)],
                ));
            }
        };
        Ok(Expr::Binary(operator, self.boxed(&binary.left)?, self.boxed(&binary.right)?))
    }

    fn call(&mut self, call: &ast::Call<'_>, span: Span) -> Result<Expr, Refusal> {
        Ok(Expr::Call(self.boxed(&call.expr)?, self.args(&call.args)?, line_of(span)))
    }

    fn args(&mut self, args: &[ast::CallArg<'_>]) -> Result<Vec<Arg>, Refusal> {
        let mut seen = HashSet::new();
        for arg in args {
            if let ast::CallArg::Kwarg(name, value) = arg
                && !seen.insert(*name)
            {
                return Err((line_of(value.span()), format!("the argument `{name}` is given twice")));
            }
        }
        let args = args.iter().map(|arg| {
            Ok(match arg {
                ast::CallArg::Pos(expr) => Arg::Positional(self.expr(expr)?),
                ast::CallArg::Kwarg(name, expr) => Arg::Named((*name).into(), self.expr(expr)?),
                ast::CallArg::PosSplat(expr) => Arg::Splat(self.expr(expr)?),
                ast::CallArg::KwargSplat(expr) => Arg::NamedSplat(self.expr(expr)?),
            })
        });
        args.collect()
    }
}

/// The parser allows blanks in the names of filters and tests (`not in`); they mean nothing.
fn compact(name: &str) -> Name {
    name.split_ascii_whitespace().collect::<String>().into()
}

fn scalar(value: &minijinja::Value, span: Span) -> Result<Value, Refusal> {
    Ok(match value.kind() {
        ValueKind::None => Value::None,
        ValueKind::Bool => Value::Bool(value.is_true()),
        ValueKind::String => Value::str(value.as_str().unwrap_or_default()),
        ValueKind::Number if value.is_integer() => match i128::try_from(value.clone()) {
            Ok(number) => Value::Int(number),
            Err(_) => return Err((line_of(span), format!("{value} is too large"))),
        },
        ValueKind::Number => Value::Float(f64::try_from(value.clone()).unwrap_or(f64::NAN)),
        other => return Err((line_of(span), format!("unexpected constant of type {other}"))),
    })
}
