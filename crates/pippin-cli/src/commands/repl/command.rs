//! The commands of the interactive mode, which begin with `/`.

/// What `/help` prints.
pub(super) const HELP: &str = r#"Commands:
  /help                  this list
  /system [TEXT]         show or set the instructions for the model; `none` removes them
  /set [NAME [VALUE]]    show or set a parameter of generation; `default` resets it
  /clear                 forget the conversation; instructions and parameters stay
  /save [--prefix] FILE  write the conversation to a file; with --prefix also what was computed of it,
                         so that it goes on at once
  /load FILE             go on with a conversation from a file
  /stats [on|off]        the numbers of the last answer; show them after each one or not
  /bye                   end (also /exit, Ctrl-D)

Ctrl-C stops an answer. A line that ends with \ goes on in the next one; """ begins and ends a
message of several lines, which may begin with / too."#;

/// Names, for suggestions.
const NAMES: &[&str] = &["/help", "/system", "/set", "/clear", "/save", "/load", "/stats", "/bye", "/exit"];

/// A command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Help,
    System(Option<String>),
    Set(Option<(String, Option<String>)>),
    Clear,
    Save {
        file: String,
        has_prefix: bool,
    },
    Load(String),
    Stats(Option<bool>),
    Bye,
    /// Something that begins like a command and is none.
    Wrong {
        message: String,
        hint: String,
    },
}

impl Command {
    /// The command that a line holds; `None` when it is a message.
    pub(super) fn parse(line: &str) -> Option<Self> {
        let line = line.trim();
        if !line.starts_with('/') {
            return None;
        }
        let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim();
        let argument = || (!rest.is_empty()).then(|| rest.to_owned());
        Some(match name.to_ascii_lowercase().as_str() {
            "/help" | "/?" => Self::Help,
            "/bye" | "/exit" | "/quit" => Self::Bye,
            "/clear" => Self::Clear,
            "/system" => Self::System(argument()),
            "/set" => Self::Set(argument().map(|words| match words.split_once([' ', '\t', '=']) {
                Some((name, value)) => (name.to_owned(), Some(value.trim().to_owned())),
                None => (words, None),
            })),
            "/save" | "/load" if rest.is_empty() || rest == "--prefix" => Self::Wrong {
                message: format!("{name} needs the name of a file"),
                hint: format!("{name} chat.json"),
            },
            "/save" => match rest.strip_prefix("--prefix").filter(|rest| rest.starts_with(char::is_whitespace)) {
                Some(file) => Self::Save { file: file.trim().to_owned(), has_prefix: true },
                None => Self::Save { file: rest.to_owned(), has_prefix: false },
            },
            "/load" => Self::Load(rest.to_owned()),
            "/stats" => match rest {
                "" => Self::Stats(None),
                "on" => Self::Stats(Some(true)),
                "off" => Self::Stats(Some(false)),
                _ => Self::Wrong {
                    message: format!("/stats takes on or off, not {rest:?}"),
                    hint: "/stats alone shows the numbers of the last answer".to_owned(),
                },
            },
            unknown => Self::Wrong {
                message: format!("there is no command {name}"),
                hint: match NAMES.iter().find(|known| is_near(unknown, known)) {
                    Some(known) => format!("did you mean {known}? /help lists the commands"),
                    None => {
                        "/help lists the commands; a message that begins with / stands between lines of \"\"\"".to_owned()
                    }
                },
            },
        })
    }
}

/// Whether one name begins with the other, or they differ by one letter.
fn is_near(typed: &str, known: &str) -> bool {
    if typed.len() > 2 && (known.starts_with(typed) || typed.starts_with(known)) {
        return true;
    }
    let (typed, known): (Vec<char>, Vec<char>) = (typed.chars().collect(), known.chars().collect());
    let common = typed.iter().zip(&known).take_while(|(a, b)| a == b).count();
    let tail = |skip_typed: usize, skip_known: usize| {
        typed.get(common + skip_typed..).zip(known.get(common + skip_known..)).is_some_and(|(a, b)| a == b)
    };
    tail(1, 1) || tail(1, 0) || tail(0, 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_no_commands() {
        for line in ["", "hello", "1 / 2", "what is /etc?"] {
            assert_eq!(Command::parse(line), None, "{line:?}");
        }
    }

    #[test]
    fn commands_have_arguments() {
        let text = |text: &str| Some(text.to_owned());
        for (line, command) in [
            ("/help", Command::Help),
            (" /BYE ", Command::Bye),
            ("/exit", Command::Bye),
            ("/system", Command::System(None)),
            ("/system  You are  brief.", Command::System(text("You are  brief."))),
            ("/system one\ntwo", Command::System(text("one\ntwo"))),
            ("/set", Command::Set(None)),
            ("/set temp", Command::Set(Some(("temp".to_owned(), None)))),
            ("/set temp 0.5", Command::Set(Some(("temp".to_owned(), text("0.5"))))),
            ("/set temp=0.5", Command::Set(Some(("temp".to_owned(), text("0.5"))))),
            ("/set stop [\"a b\"]", Command::Set(Some(("stop".to_owned(), text("[\"a b\"]"))))),
            ("/stats", Command::Stats(None)),
            ("/stats off", Command::Stats(Some(false))),
            ("/clear", Command::Clear),
            ("/save my chat.json", Command::Save { file: "my chat.json".to_owned(), has_prefix: false }),
            ("/save --prefix a.json", Command::Save { file: "a.json".to_owned(), has_prefix: true }),
            ("/load a.json", Command::Load("a.json".to_owned())),
        ] {
            assert_eq!(Command::parse(line), Some(command), "{line:?}");
        }
    }

    #[test]
    fn wrong_commands_get_a_hint() {
        for (line, expected) in [
            ("/halp", "/help"),
            ("/hel", "/help"),
            ("/byee", "/bye"),
            ("/sytem x", "/system"),
            ("/home/me/file.txt", "\"\"\""),
            ("/", "/help"),
            ("/stats maybe", "/stats"),
            ("/save", "chat.json"),
            ("/save --prefix", "chat.json"),
            ("/load ", "chat.json"),
        ] {
            match Command::parse(line) {
                Some(Command::Wrong { hint, .. }) => assert!(hint.contains(expected), "{line}: {hint}"),
                other => panic!("{line}: {other:?}"),
            }
        }
    }

    #[test]
    fn the_help_names_every_command() {
        for name in NAMES {
            assert!(HELP.contains(name), "{name}");
        }
    }
}
