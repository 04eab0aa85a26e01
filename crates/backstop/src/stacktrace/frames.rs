//! The frames of one error: own ones with source and variables, libraries in one line.

use backstop_protocol::Frame;
use serde_json::Value;

use super::html::Html;
use super::{Options, highlight, library, place, value};

/// Deeper stacks are recursion; the oldest frames say nothing.
const FRAMES_MAX: usize = 250;

/// Recursion through more functions than this is not recognised as such.
const CYCLE_FRAMES_MAX: usize = 4;

/// A cycle that repeats less often is shown in full.
const REPEATS_MIN: usize = 4;

/// More names would make the line longer than the list it stands for.
const LIBRARIES_MAX: usize = 4;

/// Frames with more variables than this are generated code.
const VARIABLES_MAX: usize = 200;

/// Longer source lines are minified code, of which the failing part is cut out by the sender.
const LINE_CHARS_MAX: usize = 400;

pub(super) struct Writer<'o> {
    pub(super) html: Html,
    pub(super) options: &'o Options,
    pub(super) platform: Option<&'o str>,
    /// How many frames of the present error are open.
    pub(super) opened: usize,
}

/// What stands in one row of the list.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Row {
    /// A frame by its place in the list, and whether it is the user's own.
    Frame(usize, bool),
    /// Library frames from one place to another.
    Libraries(usize, usize),
    /// The last so many frames repeat so often.
    Repeats { frames: usize, times: usize },
    /// So many older frames are left out.
    LeftOut(usize),
}

impl Writer<'_> {
    /// Writes frames, which come in wire order, newest first.
    pub(super) fn frames(&mut self, wire: &[Frame]) {
        self.opened = 0;
        let frames: Vec<&Frame> = wire.iter().rev().collect();
        let own = own_frames(self.platform, &frames);
        let nothing_own = !own.contains(&true);
        self.html.raw("<ol class=\"bs-frames\">");
        for row in rows(&frames, &own) {
            match row {
                Row::Frame(at, own) => self.frame(frames[at], own, nothing_own && at == 0),
                Row::Libraries(from, to) => self.libraries(&frames[from..to]),
                Row::Repeats { frames, times } => self.note(&match frames {
                    1 => format!("the frame above repeats {times} more times"),
                    _ => format!("the {frames} frames above repeat {times} more times"),
                }),
                Row::LeftOut(frames) => {
                    self.note(&format!("{frames} older frames are not shown"));
                }
            }
        }
        self.html.raw("</ol>");
    }

    fn note(&mut self, text: &str) {
        self.html.raw("<li class=\"bs-note\">");
        self.html.text(text);
        self.html.raw("</li>");
    }

    fn libraries(&mut self, frames: &[&Frame]) {
        self.html
            .raw("<li class=\"bs-libraries\"><details><summary>");
        self.html.text(&libraries_line(self.platform, frames));
        self.html.raw("</summary><ol class=\"bs-frames\">");
        for frame in frames {
            self.frame(frame, false, false);
        }
        self.html.raw("</ol></details></li>");
    }

    fn frame(&mut self, frame: &Frame, own: bool, only_hope: bool) {
        let class = if own { "bs-frame bs-own" } else { "bs-frame" };
        self.html.raw(&format!("<li class=\"{class}\">"));
        if has_body(frame) && !self.html.is_full() {
            let open = (own && self.opened < self.options.frames_open) || only_hope;
            self.opened += usize::from(open);
            self.html
                .raw(if open { "<details open>" } else { "<details>" });
            self.html.raw("<summary>");
            self.head(frame);
            self.html.raw("</summary><div class=\"bs-body\">");
            self.body(frame);
            self.html.raw("</div></details>");
        } else {
            self.html.raw("<div class=\"bs-bare\">");
            self.head(frame);
            self.html.raw("</div>");
        }
        self.html.raw("</li>");
    }

    fn head(&mut self, frame: &Frame) {
        let name = place::function(self.platform, frame);
        let html = &mut self.html;
        html.raw("<span class=\"bs-fn\">");
        if !name.path.is_empty() {
            html.span("bs-path", &name.path);
        }
        html.raw("<b>");
        html.text(&name.last);
        html.raw("</b></span>");
        if let Some(file) = place::file(frame) {
            html.raw(" <span class=\"bs-at\"");
            if let Some(path) = frame.abs_path.as_deref() {
                html.raw(" title=\"");
                html.text(path);
                html.raw("\"");
            }
            html.raw(">");
            // The end of a path says more than its beginning, so it may break after a slash.
            for part in file.split_inclusive('/') {
                html.text(part);
                html.raw("<wbr>");
            }
            if let Some(line) = frame.lineno.filter(|line| *line > 0) {
                html.raw(":<b>");
                html.text(&line.to_string());
                html.raw("</b>");
            }
            html.raw("</span>");
        }
    }

    fn body(&mut self, frame: &Frame) {
        if frame.context_line.is_some() {
            self.source(frame);
        }
        self.html.raw("<div class=\"bs-beside\">");
        self.variables(frame);
        self.editor(frame);
        self.html.raw("</div>");
    }

    fn source(&mut self, frame: &Frame) {
        let here = frame.context_line.as_deref().unwrap_or_default();
        let before = &frame.pre_context[frame.pre_context.len().saturating_sub(10)..];
        let after = &frame.post_context[..frame.post_context.len().min(10)];
        let first = frame
            .lineno
            .unwrap_or(1)
            .saturating_sub(before.len() as u64)
            .max(1);
        let lines = before
            .iter()
            .map(String::as_str)
            .chain([here])
            .chain(after.iter().map(String::as_str));
        let indent = indentation(lines.clone());
        let html = &mut self.html;
        // A region that scrolls has to be reachable by keyboard.
        html.raw(
            "<div class=\"bs-source\" tabindex=\"0\" role=\"group\" aria-label=\"Source\"><div>",
        );
        for (number, (place, line)) in (first..).zip(lines.enumerate()) {
            let is_here = place == before.len();
            html.raw(if is_here {
                "<div class=\"bs-l bs-here\">"
            } else {
                "<div class=\"bs-l\">"
            });
            html.raw(&format!("<span class=\"bs-no\">{number}</span><code>"));
            if is_here {
                html.raw("<span class=\"bs-unseen\">failing line: </span>");
            }
            let column = frame
                .colno
                .filter(|_| is_here)
                .and_then(|column| usize::try_from(column).ok()?.checked_sub(indent))
                .filter(|column| *column > 0);
            let line = line.get(indent..).unwrap_or_default().trim_end();
            highlight::line(html, self.platform, &cut(line), column);
            html.raw("</code></div>");
        }
        html.raw("</div></div>");
    }

    fn variables(&mut self, frame: &Frame) {
        let html = &mut self.html;
        if frame.vars.is_empty() {
            if let Some(why) = note_of(frame, "vars_missing") {
                html.raw("<p class=\"bs-none\">No variables: ");
                html.text(why);
                html.raw("</p>");
            }
            return;
        }
        if let Some(why) = &self.options.variables_hidden {
            let count = frame.vars.len();
            let plural = if count == 1 { "" } else { "s" };
            html.raw("<p class=\"bs-none\">");
            html.text(&format!("{count} variable{plural}: {why}"));
            html.raw("</p>");
            return;
        }
        html.raw("<table class=\"bs-vars\"><caption class=\"bs-unseen\">Variables</caption>");
        for (name, shown) in frame.vars.iter().take(VARIABLES_MAX) {
            let note = |field: &str| variable_note(frame, name, field);
            html.raw("<tr><th scope=\"row\">");
            html.text(name);
            if let Some(ty) = note("type") {
                html.span("bs-ty", ty);
            }
            html.raw("</th><td>");
            value::write(html, shown);
            // A value that is nothing but its state has said so already.
            let said = shown.as_str().map(|text| text.trim_matches(['<', '>']));
            if let Some(state) =
                note("state").filter(|state| *state != "ok" && Some(*state) != said)
            {
                html.span("bs-state", state);
            }
            html.raw("</td></tr>");
        }
        html.raw("</table>");
        if frame.vars.len() > VARIABLES_MAX {
            html.raw("<p class=\"bs-none\">");
            html.text(&format!(
                "{} more are not shown",
                frame.vars.len() - VARIABLES_MAX
            ));
            html.raw("</p>");
        }
    }

    fn editor(&mut self, frame: &Frame) {
        let path = frame.abs_path.as_deref().or(frame.filename.as_deref());
        let (Some(template), Some(path)) = (&self.options.editor, path) else {
            return;
        };
        let address = template
            .replace("{path}", &percent_encoded(path))
            .replace("{line}", &frame.lineno.unwrap_or(1).to_string())
            .replace("{column}", &frame.colno.unwrap_or(1).to_string());
        self.html.raw("<a class=\"bs-edit\" href=\"");
        self.html.text(&address);
        self.html.raw("\">Open in editor</a>");
    }
}

/// What the sender noted about one variable, beside its value.
fn variable_note<'f>(frame: &'f Frame, name: &str, field: &str) -> Option<&'f str> {
    let text = frame.data.as_ref()?.get("vars")?.get(name)?.get(field)?;
    text.as_str().filter(|text| !text.is_empty())
}

fn note_of<'f>(frame: &'f Frame, field: &str) -> Option<&'f str> {
    frame.data.as_ref()?.get(field)?.as_str()
}

fn has_body(frame: &Frame) -> bool {
    frame.context_line.is_some()
        || !frame.vars.is_empty()
        || frame
            .data
            .as_ref()
            .and_then(|data| data.get("vars_missing"))
            .is_some_and(Value::is_string)
}

/// Which frames are the user's own: what is proven, else what the sender says, and where it
/// says that none is, those that nothing proves to be a library's.
fn own_frames(platform: Option<&str>, frames: &[&Frame]) -> Vec<bool> {
    let proven: Vec<Option<bool>> = frames
        .iter()
        .map(|frame| backstop_protocol::in_app(platform, frame))
        .collect();
    let own: Vec<bool> = frames
        .iter()
        .zip(&proven)
        .map(|(frame, proven)| proven.or(frame.in_app).unwrap_or(false))
        .collect();
    if own.contains(&true) {
        return own;
    }
    proven.iter().map(Option::is_none).collect()
}

/// Arranges frames, newest first, in rows.
pub(super) fn arrange(platform: Option<&str>, frames: &[&Frame]) -> Vec<Row> {
    rows(frames, &own_frames(platform, frames))
}

fn rows(frames: &[&Frame], own: &[bool]) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut at = 0;
    let mut shown = 0;
    while at < frames.len() {
        if shown >= FRAMES_MAX {
            rows.push(Row::LeftOut(frames.len() - at));
            break;
        }
        if let Some((cycle, times)) = cycle(&frames[at..]) {
            push_plain(&mut rows, own, at, at + cycle);
            rows.push(Row::Repeats {
                frames: cycle,
                times: times - 1,
            });
            shown += cycle;
            at += cycle * times;
            continue;
        }
        let begin = at;
        at += 1;
        while at < frames.len() && own[at] == own[begin] && cycle(&frames[at..]).is_none() {
            at += 1;
        }
        let end = at.min(begin + FRAMES_MAX - shown);
        push_plain(&mut rows, own, begin, end);
        shown += end - begin;
        at = end;
    }
    rows
}

/// Adds frames; neighbours of libraries become one row.
fn push_plain(rows: &mut Vec<Row>, own: &[bool], from: usize, to: usize) {
    let mut at = from;
    while at < to {
        let run = own[at..to].iter().take_while(|own| !**own).count();
        match run {
            0 => rows.push(Row::Frame(at, true)),
            1 => rows.push(Row::Frame(at, false)),
            _ => rows.push(Row::Libraries(at, at + run)),
        }
        at += run.max(1);
    }
}

/// Recognises recursion: the length of the cycle that begins here, and how often it occurs.
fn cycle(frames: &[&Frame]) -> Option<(usize, usize)> {
    (1..=CYCLE_FRAMES_MAX).find_map(|length| {
        let same = frames
            .iter()
            .zip(frames.get(length..)?)
            .take_while(|(frame, later)| same_place(frame, later))
            .count();
        let times = same / length + 1;
        (times >= REPEATS_MIN).then_some((length, times))
    })
}

fn same_place(one: &Frame, other: &Frame) -> bool {
    one.function == other.function
        && one.lineno == other.lineno
        && one.filename == other.filename
        && one.abs_path == other.abs_path
        && one.instruction_addr == other.instruction_addr
}

/// `27 frames of tokio, axum, hyper`, the most frequent first.
pub(super) fn libraries_line(platform: Option<&str>, frames: &[&Frame]) -> String {
    let mut counts: Vec<(String, usize)> = Vec::new();
    for frame in frames {
        let Some(name) = library::name(platform, frame) else {
            continue;
        };
        match counts.iter_mut().find(|(known, _)| *known == name) {
            Some((_, count)) => *count += 1,
            None => counts.push((name, 1)),
        }
    }
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let more = counts.len() > LIBRARIES_MAX;
    let mut names: Vec<String> = counts.into_iter().map(|(name, _)| name).collect();
    names.truncate(LIBRARIES_MAX);
    let frames = match frames.len() {
        1 => "1 frame".to_owned(),
        count => format!("{count} frames"),
    };
    match names.is_empty() {
        true => format!("{frames} of libraries"),
        false => format!(
            "{frames} of {}{}",
            names.join(", "),
            if more { ", …" } else { "" }
        ),
    }
}

/// The blanks that all lines begin with; code far to the right wastes a small screen.
fn indentation<'l>(lines: impl Iterator<Item = &'l str>) -> usize {
    lines
        .filter(|line| !line.trim().is_empty())
        .map(|line| {
            line.bytes()
                .take_while(|byte| matches!(byte, b' ' | b'\t'))
                .count()
        })
        .min()
        .unwrap_or(0)
}

fn cut(line: &str) -> String {
    match line.char_indices().nth(LINE_CHARS_MAX) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line.to_owned(),
    }
}

/// Keeps what a path in an address may have (RFC 3986, section 3.3).
fn percent_encoded(path: &str) -> String {
    let mut encoded = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b'~' | b':' => encoded.push(char::from(byte)),
            byte if byte.is_ascii_alphanumeric() => encoded.push(char::from(byte)),
            byte => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(function: &str) -> Frame {
        Frame {
            function: Some(function.to_owned()),
            ..Frame::default()
        }
    }

    fn arranged(names: &str) -> Vec<Row> {
        let frames: Vec<Frame> = names.split_whitespace().map(frame).collect();
        let list: Vec<&Frame> = frames.iter().collect();
        let own: Vec<bool> = names
            .split_whitespace()
            .map(|name| name.starts_with(char::is_uppercase))
            .collect();
        rows(&list, &own)
    }

    #[test]
    fn runs_of_libraries_are_one_row() {
        assert_eq!(
            arranged("a b A c B C d e f"),
            [
                Row::Libraries(0, 2),
                Row::Frame(2, true),
                Row::Frame(3, false),
                Row::Frame(4, true),
                Row::Frame(5, true),
                Row::Libraries(6, 9),
            ]
        );
        assert_eq!(arranged(""), []);
    }

    #[test]
    fn recursion_is_told_once() {
        assert_eq!(
            arranged("X A B A B A B A B A Y"),
            [
                Row::Frame(0, true),
                Row::Frame(1, true),
                Row::Frame(2, true),
                Row::Repeats {
                    frames: 2,
                    times: 3
                },
                Row::Frame(9, true),
                Row::Frame(10, true),
            ]
        );
        assert_eq!(
            arranged(&"A ".repeat(981)),
            [
                Row::Frame(0, true),
                Row::Repeats {
                    frames: 1,
                    times: 980
                }
            ]
        );
    }

    #[test]
    fn endless_stacks_end() {
        let names: String = (0..400).map(|number| format!("F{number} ")).collect();
        let rows = arranged(&names);
        assert_eq!(rows.len(), FRAMES_MAX + 1);
        assert_eq!(rows.last(), Some(&Row::LeftOut(150)));
    }

    #[test]
    fn addresses_of_editors_are_safe() {
        assert_eq!(
            percent_encoded("/a b/\"<ä>.rs"),
            "/a%20b/%22%3C%C3%A4%3E.rs"
        );
    }
}
