//! The interactive mode: a conversation at the terminal.

mod command;
mod editor;
mod lines;

use std::io::Write;
use std::path::PathBuf;

use pippin::{
    ChatSession, EngineError, FinishReason, GenerateInfo, GenerateParameters, GenerationEvent,
    ModelContainer, Role,
};

use self::command::Command;
use self::editor::Editor;
use self::lines::{Entry, Lines, read_entry};
use super::run::Conversation;
use crate::error::{CliError, Result, describe};
use crate::interrupt::Interrupt;
use crate::output::{self, AnswerWriter};
use crate::parameters;

/// Holds a conversation until the user ends it.
pub(super) fn run(
    model: ModelContainer,
    conversation: Conversation,
    parameters: GenerateParameters,
    stats: bool,
    history: Option<PathBuf>,
    interrupt: &Interrupt,
) -> Result<()> {
    let mut editor = Editor::new(history)?;
    output::note(&format!(
        "{} on {}, context of {} tokens; /help lists the commands",
        model.name(),
        model.device(),
        model.context()
    ));
    let mut repl = Repl::new(model, conversation, parameters, stats, AnswerWriter::stdout(), interrupt);
    repl.run(&mut editor)
}

/// The state of a conversation.
struct Repl<'a, W> {
    session: ChatSession,
    /// No chat template and no memory: every entry is a prompt of its own.
    raw: bool,
    stats: bool,
    last_info: Option<GenerateInfo>,
    out: AnswerWriter<W>,
    interrupt: &'a Interrupt,
}

/// Whether the conversation goes on.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Continue,
    End,
}

impl<'a, W: Write> Repl<'a, W> {
    fn new(
        model: ModelContainer,
        conversation: Conversation,
        parameters: GenerateParameters,
        stats: bool,
        out: AnswerWriter<W>,
        interrupt: &'a Interrupt,
    ) -> Self {
        let Conversation { raw, input, .. } = conversation;
        let mut messages = input.messages;
        let instructions = match messages.first() {
            // What is not text stays where it is, for the template to take or refuse.
            Some(first) if first.role() == Role::System => first.text(),
            _ => None,
        };
        if instructions.is_some() {
            messages.remove(0);
        }
        let mut session = ChatSession::new(model)
            .with_parameters(parameters)
            .with_history(messages)
            .with_tools(input.tools)
            .with_template_kwargs(input.template_kwargs);
        session.set_system(instructions);
        Self { session, raw, stats, last_info: None, out, interrupt }
    }

    fn run(&mut self, lines: &mut impl Lines) -> Result<()> {
        loop {
            match read_entry(lines)? {
                Entry::End => return Ok(()),
                Entry::Abandoned => output::note("Ctrl-D or /bye ends the conversation"),
                Entry::Text { text, is_block } => {
                    if text.trim().is_empty() {
                        continue;
                    }
                    let next = match Command::parse(&text) {
                        // What stands in a block is a message whatever it begins with.
                        Some(command) if !is_block => self.obey(command),
                        _ => self.answer(&text)?,
                    };
                    if next == Next::End {
                        return Ok(());
                    }
                }
            }
        }
    }

    fn obey(&mut self, command: Command) -> Next {
        match command {
            Command::Help => output::lines(command::HELP),
            Command::Bye => return Next::End,
            Command::Clear => {
                self.session.clear();
                self.last_info = None;
                output::note("the conversation is forgotten");
            }
            Command::System(None) => {
                output::note(self.session.system().unwrap_or("there are no instructions"))
            }
            Command::System(Some(text)) => {
                let text = if text == "none" { String::new() } else { text };
                output::note(if text.is_empty() { "instructions removed" } else { "instructions set" });
                self.session.set_system(Some(text));
            }
            Command::Set(None) => {
                let list = parameters::list(self.session.parameters());
                let line = |(name, value): &(String, String)| format!("  {name:24} {value}");
                output::lines(&list.iter().map(line).collect::<Vec<_>>().join("\n"));
            }
            Command::Set(Some((name, None))) => self.show_parameter(&name),
            Command::Set(Some((name, Some(value)))) => {
                match parameters::set_text(self.session.parameters(), &name, &value) {
                    Ok(changed) => {
                        *self.session.parameters_mut() = changed;
                        self.show_parameter(&name);
                    }
                    Err(problem) => {
                        output::error(&problem, Some("/set lists the parameters and their values"))
                    }
                }
            }
            Command::Stats(None) => {
                match &self.last_info {
                    Some(info) => output::lines(&output::statistics(info)),
                    None => {
                        output::note("there is no answer yet; /stats on shows the numbers after each one")
                    }
                }
                let performance = self.session.container().performance();
                output::lines(&format!("{}:\n{}", performance.model, output::performance(&performance)));
            }
            Command::Stats(Some(on)) => {
                self.stats = on;
                output::note(if on {
                    "numbers are shown after each answer"
                } else {
                    "numbers are not shown"
                });
            }
            Command::Save { file, has_prefix } => self.save(&file, has_prefix),
            Command::Load(file) => self.load(&file),
            Command::Wrong { message, hint } => output::error(&message, Some(&hint)),
        }
        Next::Continue
    }

    fn save(&self, file: &str, has_prefix: bool) {
        let path = pippin::hub::expand_path(file);
        let saved = match has_prefix {
            true => self.session.save_with_prefix(&path),
            false => self.session.save(&path).map(|()| true),
        };
        match saved {
            Ok(true) => output::note(&format!("saved to {}", path.display())),
            Ok(false) => output::note(&format!(
                "saved to {}, without what was computed: there is nothing of it",
                path.display()
            )),
            Err(error) => output::error(&describe(&error), error.hint().as_deref()),
        }
    }

    fn load(&mut self, file: &str) {
        let path = pippin::hub::expand_path(file);
        match ChatSession::load(self.session.container().clone(), &path) {
            Ok(session) => {
                self.session = session;
                self.last_info = None;
                let count = self.session.history().len();
                output::note(&format!("{count} messages from {}", path.display()));
            }
            Err(error) => output::error(&describe(&error), error.hint().as_deref()),
        }
    }

    fn show_parameter(&mut self, name: &str) {
        let Some(name) = parameters::known_name(name) else {
            output::error(&format!("there is no parameter {name:?}"), Some("/set lists the parameters"));
            return;
        };
        let list = parameters::list(self.session.parameters());
        for (name, value) in list.iter().filter(|(listed, _)| *listed == name) {
            output::note(&format!("{name} = {value}"));
        }
    }

    /// Answers a message. Whatever the model refuses is reported, and the conversation goes on.
    fn answer(&mut self, text: &str) -> Result<Next> {
        self.last_info = None;
        let outcome = if self.raw { self.complete(text) } else { self.respond(text) };
        match outcome {
            Ok(()) => {}
            Err(CliError::Engine { error, .. }) => {
                if !self.session.container().is_alive() {
                    return Err((*error).into());
                }
                let hint = match &*error {
                    EngineError::PromptTooLong { .. } if !self.raw => {
                        Some("/clear forgets the conversation so far".to_owned())
                    }
                    error => error.hint(),
                };
                output::error(&describe(&error), hint.as_deref());
            }
            Err(error) => return Err(error),
        }
        if let Some(info) = &self.last_info {
            match info.finish_reason {
                FinishReason::Cancelled => output::note("(stopped)"),
                FinishReason::Length => output::note("(cut: max_tokens or the context is used up)"),
                _ => {}
            }
            if self.stats {
                output::lines(&output::statistics(info));
            }
        }
        Ok(Next::Continue)
    }

    fn respond(&mut self, text: &str) -> Result<()> {
        let mut events = self.session.stream(text)?.into_events();
        let _watch = self.interrupt.watch(events.cancel_handle());
        let outcome = events.try_for_each(|part| Ok(self.out.part(&part?)?));
        drop(events);
        self.last_info = self.session.last_info();
        self.finish(outcome)
    }

    fn complete(&mut self, text: &str) -> Result<()> {
        let mut stream = self.session.container().generate_text(text, self.session.parameters())?;
        let _watch = self.interrupt.watch(stream.cancel_handle());
        let outcome = stream.try_for_each(|event| {
            let event = event?;
            if let GenerationEvent::Info(info) = &event {
                self.last_info = Some(info.clone());
            }
            Ok(self.out.piece(event.text())?)
        });
        self.finish(outcome)
    }

    /// Ends the answer's line, also where an error follows.
    fn finish(&mut self, outcome: Result<()>) -> Result<()> {
        if !matches!(outcome, Err(CliError::Output(_))) {
            self.out.end()?;
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::io;

    use pippin::LoadOptions;

    use super::*;
    use crate::commands::repl::lines::Line;

    struct Script(VecDeque<Line>);

    impl Script {
        fn new(lines: &[&str]) -> Self {
            Self(lines.iter().map(|line| Line::Text((*line).to_owned())).collect())
        }
    }

    impl Lines for Script {
        fn read(&mut self, _prompt: &str) -> io::Result<Line> {
            Ok(self.0.pop_front().unwrap_or(Line::End))
        }

        fn remember(&mut self, _entry: &str) {}
    }

    fn repl(interrupt: &Interrupt, raw: bool) -> Repl<'_, Vec<u8>> {
        let model = ModelContainer::load("pippin-nano", &LoadOptions::default()).expect("the shipped model");
        let parameters = GenerateParameters { max_tokens: Some(40), ..GenerateParameters::greedy() };
        let conversation = Conversation { raw, ..Conversation::default() };
        Repl::new(model, conversation, parameters, false, AnswerWriter::new(Vec::new(), false), interrupt)
    }

    fn answers(repl: Repl<'_, Vec<u8>>) -> String {
        String::from_utf8(repl.out.into_inner()).expect("UTF-8")
    }

    #[test]
    fn a_conversation_is_held() {
        let interrupt = Interrupt::default();
        let mut repl = repl(&interrupt, false);
        repl.run(&mut Script::new(&["What is 17 plus 25?", "", "/stats", "/nonsense", "/bye", "never read"]))
            .expect("runs");
        assert_eq!(repl.session.messages().len(), 2);
        assert!(repl.last_info.is_some());
        assert!(answers(repl).contains("42"));
    }

    #[test]
    fn commands_change_the_session() {
        let interrupt = Interrupt::default();
        let mut repl = repl(&interrupt, false);
        repl.run(&mut Script::new(&[
            "/set temp 0.5",
            "/set top_p 7",
            "/system Be brief.",
            "/stats on",
            "Hello",
        ]))
        .expect("runs");
        assert_eq!(repl.session.parameters().temperature, 0.5);
        assert_eq!(repl.session.parameters().top_p, 1.0);
        assert_eq!(repl.session.system(), Some("Be brief."));
        assert!(repl.stats);
        assert_eq!(repl.session.messages().len(), 3);
        repl.run(&mut Script::new(&["/clear", "/system none"])).expect("runs");
        assert!(repl.session.messages().is_empty());
    }

    #[test]
    fn conversations_are_saved_and_loaded() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str| folder.path().join(name).display().to_string();
        let interrupt = Interrupt::default();
        let mut first = repl(&interrupt, false);
        let save = format!("/save --prefix {}", file("a chat.json"));
        first.run(&mut Script::new(&["/system Be brief.", "What is 17 plus 25?", &save])).expect("runs");
        let messages = first.session.messages();
        assert_eq!(messages.len(), 3);

        let mut second = repl(&interrupt, false);
        let load = |name: &str| format!("/load {}", file(name));
        second.run(&mut Script::new(&["Hello", &load("none.json"), &load("a chat.json")])).expect("runs");
        assert_eq!(second.session.messages(), messages);
        second.run(&mut Script::new(&["And 3 plus 4?"])).expect("runs");
        let info = second.last_info.clone().expect("an answer");
        assert!(info.cached_tokens > 32, "{info:?}");
    }

    #[test]
    fn a_refused_message_leaves_the_conversation_as_it_was() {
        let interrupt = Interrupt::default();
        let mut repl = repl(&interrupt, false);
        let long = "word ".repeat(100_000);
        repl.run(&mut Script::new(&[&long, "What is 17 plus 25?"])).expect("runs");
        assert_eq!(repl.session.messages().len(), 2);
        assert!(answers(repl).contains("42"));
    }

    #[test]
    fn raw_entries_stand_alone() {
        let interrupt = Interrupt::default();
        let mut repl = repl(&interrupt, true);
        repl.run(&mut Script::new(&["Once upon a time"])).expect("runs");
        assert!(repl.session.messages().is_empty());
        assert!(repl.last_info.as_ref().is_some_and(|info| info.generated_tokens > 0));
    }
}
