//! What terminals can do; and standard error, shared by whole lines and one line that is drawn over and over.
//!
//! Whatever else is written first wipes the drawn line, so that a warning in the middle of a pass starts in the first
//! column and stays. Each write is one call, and none can fail loudly: a daemon whose standard error was closed goes on.

use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};

/// Whether the drawn line is on the screen.
static DRAWN: Mutex<bool> = Mutex::new(false);

/// Whether a stream is a terminal that understands the few escapes used here.
pub fn is_capable(stream: &impl IsTerminal) -> bool {
    let term = std::env::var_os("TERM").unwrap_or_default();
    stream.is_terminal() && !term.is_empty() && term != "dumb"
}

/// Whether colours are wanted there too (`NO_COLOR` says not).
pub fn wants_colour(stream: &impl IsTerminal) -> bool {
    is_capable(stream) && std::env::var_os("NO_COLOR").is_none_or(|no| no.is_empty())
}

/// How many columns a terminal has; `None` for what is none, or does not say.
pub fn width(stream: impl AsFd) -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(stream).ok()?;
    (size.ws_col > 0).then_some(size.ws_col.into())
}

/// Writes one line, or several; the newline at the end is added.
pub fn say(text: &str) {
    write(|drawn| {
        let wipe = if std::mem::take(drawn) { WIPE } else { "" };
        format!("{wipe}{text}\n")
    });
}

/// Draws `text` over what was drawn before. What does not fit the width is left out by the terminal itself, which is
/// kept from wrapping; so a window may change its size at any time. Its last column shows what came last: a space.
pub fn draw(text: &str) {
    write(|drawn| {
        *drawn = true;
        format!("{WIPE}{NO_WRAP}{text} {WRAP}")
    });
}

/// Wipes the drawn line, if there is one.
pub fn wipe() {
    write(|drawn| if std::mem::take(drawn) { WIPE.to_owned() } else { String::new() });
}

fn write(compose: impl FnOnce(&mut bool) -> String) {
    let mut drawn = DRAWN.lock().unwrap_or_else(PoisonError::into_inner);
    let text = compose(&mut drawn);
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// To the first column, and clear from there.
const WIPE: &str = "\r\x1b[K";
const NO_WRAP: &str = "\x1b[?7l";
const WRAP: &str = "\x1b[?7h";
