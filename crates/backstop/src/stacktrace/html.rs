//! Writing HTML: what is not markup is escaped.

/// More HTML than this is slower to read than to fetch; what comes later is written in short.
const BYTES_MAX: usize = 1024 * 1024;

/// HTML that is being written.
pub(crate) struct Html(String);

impl Html {
    pub(crate) fn new() -> Html {
        Html(String::with_capacity(16 * 1024))
    }

    /// Writes markup.
    pub(crate) fn raw(&mut self, markup: &str) {
        self.0.push_str(markup);
    }

    /// Writes text of others, for element content and quoted attributes alike.
    pub(crate) fn text(&mut self, text: &str) {
        for character in text.chars() {
            match character {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                // Invisible characters could reorder or hide the text around them.
                '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                    self.0
                        .push_str(&format!("\\u{{{:x}}}", u32::from(character)));
                }
                '\n' | '\t' => self.0.push(character),
                control if control.is_control() => {
                    self.0.push_str(&format!("\\x{:02x}", u32::from(control)));
                }
                plain => self.0.push(plain),
            }
        }
    }

    /// Writes text in an element with a class; the class is ours.
    pub(crate) fn span(&mut self, class: &str, text: &str) {
        self.raw("<span class=\"");
        self.raw(class);
        self.raw("\">");
        self.text(text);
        self.raw("</span>");
    }

    pub(crate) fn is_full(&self) -> bool {
        self.0.len() > BYTES_MAX
    }

    pub(crate) fn finish(self) -> String {
        self.0
    }
}
