//! Opening an address in the browser of whoever sits here.

use std::io;
use std::process::{Child, Command, Stdio};

/// Opens an address, and calls `on_failure` (on a thread of its own) if that does not work: there may be no browser, or
/// nobody who sits here. Does not wait.
pub(crate) fn open(address: &str, on_failure: impl FnOnce() + Send + 'static) {
    match start(address) {
        Err(_) => on_failure(),
        Ok(mut child) => {
            // A browser that was not running yet may be this very process, and run for days.
            std::thread::spawn(move || {
                if !child.wait().is_ok_and(|status| status.success()) {
                    on_failure();
                }
            });
        }
    }
}

fn start(address: &str) -> io::Result<Child> {
    let mut command = if cfg!(windows) {
        let mut command = Command::new("rundll32");
        command.arg("url.dll,FileProtocolHandler");
        command
    } else if cfg!(target_os = "macos") {
        Command::new("open")
    } else {
        Command::new("xdg-open")
    };
    command.arg(address).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // The Ctrl-C that ends the server is not for the browser.
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    command.spawn()
}
