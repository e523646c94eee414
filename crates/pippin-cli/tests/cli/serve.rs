//! `pippin serve`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStderr, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{TinyModel, finish, pippin, program};

struct Serving {
    child: Child,
    stderr: BufReader<ChildStderr>,
    /// What was shown until it was ready.
    screen: String,
}

impl Serving {
    fn start(arguments: &[&str]) -> Self {
        Self::start_with(arguments, |_| {})
    }

    fn start_with(arguments: &[&str], change: impl FnOnce(&mut Command)) -> Self {
        let mut command = program();
        change(&mut command);
        command.args(["serve", "--port", "0"]).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("starts");
        let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
        let mut screen = String::new();
        while !screen.contains("  curl ") || !screen.ends_with('\n') {
            assert_ne!(stderr.read_line(&mut screen).expect("read"), 0, "{screen}");
        }
        Self { child, stderr, screen }
    }

    fn address(&self) -> &str {
        let (_, rest) = self.screen.split_once("serving at http://").expect("an address");
        rest.split("/v1").next().expect("an address")
    }

    /// What a path shows.
    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.address()).expect("connects");
        let host = self.address();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n").expect("sent");
        let mut reply = String::new();
        stream.read_to_string(&mut reply).expect("an answer");
        reply
    }

    /// Does what the curl line says.
    fn curl(&self, headers: &str) -> String {
        let line = self.screen.lines().find(|line| line.starts_with("  curl ")).expect("a line");
        let body = line.split(" -d '").nth(1).expect("a body").trim_end_matches('\'');
        assert!(line.contains(&format!("http://{}/v1/chat/completions", self.address())));
        let mut stream = TcpStream::connect(self.address()).expect("connects");
        let (host, length) = (self.address(), body.len());
        let head = format!("POST /v1/chat/completions HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n");
        write!(stream, "{head}{headers}content-length: {length}\r\n\r\n{body}").expect("sent");
        let mut reply = String::new();
        stream.read_to_string(&mut reply).expect("an answer");
        reply
    }

    /// Ends it with a signal, and returns how, what stood on standard output, and the rest of the log.
    fn end(mut self, signal: Signal) -> (Option<i32>, String, String) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a process id"));
        kill(pid, signal).expect("sent");
        let (mut stdout, mut log) = (String::new(), String::new());
        self.stderr.read_to_string(&mut log).expect("a log");
        self.child.stdout.take().expect("piped").read_to_string(&mut stdout).expect("read");
        (self.child.wait().expect("ends").code(), stdout, log)
    }
}

#[test]
fn it_answers_and_ends_well() {
    let mut model = TinyModel::new();
    model.config["max_position_embeddings"] = 200.into();
    let name = model.path().file_name().expect("a name").to_string_lossy().into_owned();
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let serving = Serving::start(&[model.write()]);
        assert!(serving.screen.contains(&format!("  {name}: ")), "{}", serving.screen);
        // The whole name, for the folder is nobody's business.
        assert!(!serving.screen.contains(&format!("/{name}\"")), "{}", serving.screen);
        let reply = serving.curl("x-request-id: of-the-test\r\n");
        assert!(reply.starts_with("HTTP/1.1 200 OK\r\n") && reply.contains("\"finish_reason\":"), "{reply}");
        let (code, stdout, log) = serving.end(signal);
        assert_eq!((code, stdout.as_str()), (Some(0), ""));
        assert!(log.contains("of-the-test") && log.contains("/v1/chat/completions"), "{log}");
        assert!(!log.contains("17 plus"), "{log}");
    }
}

#[test]
fn a_draft_model_guesses_where_the_configuration_names_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("config.toml");
    let serve = |draft: &str| {
        std::fs::write(&config, format!("[models.\"pippin-nano\"]\ndraft_model = \"{draft}\"\n"))
            .expect("written");
        Serving::start_with(&["pippin-nano"], |command| {
            command.env("PIPPIN_CONFIG", &config);
        })
    };
    let serving = serve("pippin-nano");
    assert!(serving.curl("").starts_with("HTTP/1.1 200 "));
    let metrics = serving.get("/metrics");
    let drafted = metrics.lines().find(|line| line.starts_with("pippin_drafted_tokens_total{"));
    let drafted = drafted.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    assert!(drafted > Some(0.0), "{metrics}");
    assert_eq!(serving.end(Signal::SIGTERM).0, Some(0));
    // One that is not there is told of.
    let mut command = program();
    command.env("PIPPIN_CONFIG", &config).args(["serve", "--port", "0", "pippin-nano"]);
    std::fs::write(&config, "[models.\"pippin-nano\"]\ndraft_model = \"some/where-else\"\n")
        .expect("written");
    finish(&mut command, b"").fails(3, &["some/where-else"]).hints("pippin pull");
}

#[test]
fn keys_are_asked_for() {
    let model = TinyModel::new();
    let keys = model.file("keys");
    std::fs::write(&keys, "# of the test\na-long-enough-key\n").expect("written");
    let serving = Serving::start(&[model.write(), "--keys-file", keys.to_str().expect("UTF-8")]);
    assert!(serving.screen.contains("Authorization: Bearer $KEY"));
    // The lines work as they stand: the key is that of the file.
    let line = serving.screen.lines().find(|line| line.starts_with("  KEY=")).expect("a line");
    let shown = Command::new("sh").arg("-c").arg(format!("{}; printf %s \"$KEY\"", line.trim())).output();
    assert_eq!(shown.expect("a shell").stdout, b"a-long-enough-key");
    assert!(serving.curl("").starts_with("HTTP/1.1 401 "));
    let reply = serving.curl("authorization: Bearer a-long-enough-key\r\n");
    assert!(reply.starts_with("HTTP/1.1 200 "), "{reply}");
    let (code, _, log) = serving.end(Signal::SIGTERM);
    assert_eq!(code, Some(0));
    assert!(!log.contains("a-long-enough-key"), "{log}");
    // Counted as errors about a file of keys count them.
    assert!(log.contains("key=1"), "{log}");
}

/// A folder in the place of `PATH`, with a browser that writes down what it is to open.
#[cfg(not(any(target_os = "macos", windows)))]
fn folder_with_browser(exit: i32) -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a folder");
    let script = folder.path().join("xdg-open");
    let text = format!(
        "#!/bin/sh\necho \"$1\" > {}/opened.part\n/bin/mv {0}/opened.part {0}/opened\nexit {exit}\n",
        folder.path().display()
    );
    std::fs::write(&script, text).expect("written");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("set");
    folder
}

#[test]
#[cfg(not(any(target_os = "macos", windows)))]
fn the_page_opens_in_the_browser() {
    let model = TinyModel::new();
    let folder = folder_with_browser(0);
    let serving = Serving::start_with(&[model.write(), "--open"], |command| {
        command.env("PATH", folder.path());
    });
    let address = format!("http://{}/", serving.address());
    assert!(serving.screen.contains(&format!("web page at {address}\n")), "{}", serving.screen);
    let opened = folder.path().join("opened");
    while !opened.exists() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert_eq!(std::fs::read_to_string(opened).expect("read").trim(), address);
    assert_eq!(serving.end(Signal::SIGTERM).0, Some(0));
}

#[test]
#[cfg(not(any(target_os = "macos", windows)))]
fn without_a_browser_there_is_a_hint() {
    let model = TinyModel::new();
    let (empty, broken) = (tempfile::tempdir().expect("a folder"), folder_with_browser(3));
    for folder in [&empty, &broken] {
        let mut serving = Serving::start_with(&[model.write(), "--open"], |command| {
            command.env("PATH", folder.path());
        });
        let hint = format!("no browser could be opened; the page is at http://{}/", serving.address());
        let mut log = String::new();
        while !log.contains(&hint) {
            assert_ne!(serving.stderr.read_line(&mut log).expect("read"), 0, "{log}");
        }
        assert!(serving.curl("").starts_with("HTTP/1.1 200 "));
        assert_eq!(serving.end(Signal::SIGTERM).0, Some(0));
    }
}

#[test]
fn a_server_without_a_page_names_none() {
    let model = TinyModel::new();
    let serving = Serving::start(&[model.write(), "--no-page"]);
    assert!(!serving.screen.contains("page"), "{}", serving.screen);
    assert_eq!(serving.end(Signal::SIGTERM).0, Some(0));
    pippin(&["serve", model.write(), "--no-page", "--open"]).fails(2, &["--no-page", "--open"]);
}

#[test]
fn what_cannot_be_served() {
    let model = TinyModel::new();
    let folder = model.write();
    let open = pippin(&["serve", folder, "--host", "0.0.0.0", "--port", "0"]);
    open.fails(2, &["can be reached from other machines"]).hints("--keys-file");
    pippin(&["serve", folder, "--host", "no address"]).fails(2, &["no address"]).hints("--host");
    pippin(&["serve", folder, "--keys-file", "/no/such/file"]).fails(5, &["/no/such/file"]);
    pippin(&["serve", "no-such-model"]).fails(3, &["no-such-model"]);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port().to_string();
    pippin(&["serve", folder, "--port", &port]).fails(1, &["cannot listen"]).hints("--port");
    let origin = pippin(&["serve", folder, "--port", "0", "--allowed-origins", "foo"]);
    origin.fails(2, &["\"foo\" is no origin"]).hints("http://localhost:3000");
    // Nothing has begun that could shut down.
    let outcome =
        pippin(&["serve", folder, "--port", "0", "--memory-budget", "1KB"]).fails(7, &["memory budget"]);
    assert!(!outcome.stderr.contains("shutting down"), "{outcome:?}");
}
