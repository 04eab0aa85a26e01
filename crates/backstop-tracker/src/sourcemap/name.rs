//! The original name of a function whose minified name is known.
//!
//! A map names tokens, not functions, so the place where the minified function got its name is
//! searched in the minified file, backwards from the place that failed; the map then says what
//! stands there in the source.

use memchr::memmem;

use super::map::SourceMap;

/// How far back a function may begin; larger ones are whole modules.
const SEARCH_BYTES_MAX: usize = 256 * 1024;
/// Places that have the name; a one-letter name is everywhere.
const PLACES_MAX: usize = 2_000;
/// The parameters of a method.
const PARAMETERS_BYTES_MAX: usize = 500;

/// A minified file.
#[derive(Debug, Default)]
pub(crate) struct Minified {
    text: String,
    /// Where each line begins.
    lines: Vec<usize>,
}

impl Minified {
    pub(crate) fn new(text: String) -> Minified {
        let breaks = memchr::memchr_iter(b'\n', text.as_bytes()).map(|at| at + 1);
        let lines = std::iter::once(0).chain(breaks).collect();
        Minified { text, lines }
    }

    /// Bytes in memory, about.
    pub(crate) fn cost(&self) -> usize {
        self.text.capacity() + self.lines.capacity() * size_of::<usize>()
    }

    /// Where the file says that its map is.
    pub(crate) fn map_url(&self) -> Option<&str> {
        /// The comment is one of the last lines.
        const TAIL_LINES: usize = 10;
        let mut lines = self.text.lines().rev().take(TAIL_LINES);
        lines.find_map(|line| {
            let line = line.trim();
            let url = line
                .strip_prefix("//# sourceMappingURL=")
                .or_else(|| line.strip_prefix("//@ sourceMappingURL="))?;
            (!url.is_empty()).then_some(url)
        })
    }

    /// Says whether a name stands at a place.
    pub(crate) fn has_name_at(&self, name: &str, line: u32, column: u32) -> bool {
        let Some(at) = self.offset(line, column) else {
            return false;
        };
        let after = self.text[at..].strip_prefix(name);
        after.is_some_and(|after| !after.starts_with(is_name_letter))
    }

    /// Returns the original name of the function that is called `name` here and contains the place.
    pub(crate) fn original_name(
        &self,
        map: &SourceMap,
        name: &str,
        line: u32,
        column: u32,
    ) -> Option<String> {
        if name.is_empty() || !name.chars().all(is_name_letter) {
            return None;
        }
        let end = self.offset(line, column)?;
        let mut start = end.saturating_sub(SEARCH_BYTES_MAX);
        while !self.text.is_char_boundary(start) {
            start += 1;
        }
        let places = memmem::FinderRev::new(name.as_bytes());
        let places = places.rfind_iter(&self.text.as_bytes()[start..end]);
        for at in places.take(PLACES_MAX) {
            let at = start + at;
            if !self.is_definition(name, at) {
                continue;
            }
            let (line, column) = self.place(at);
            let Some(place) = map.lookup(line, column).filter(|place| place.exact) else {
                continue;
            };
            if let Some(original) = place.name.filter(|name| !name.is_empty()) {
                return Some(original.to_owned());
            }
            // A name that was not shortened has no entry of its own.
            let line = place.content?.lines().nth(place.line as usize)?;
            let original = &line[offset_in(line, place.column)?..];
            return name_at_start(original).map(str::to_owned);
        }
        None
    }

    /// Says whether a function gets this name here: `function f`, `f=function`, `f=(a)=>`, `f(a){`.
    fn is_definition(&self, name: &str, at: usize) -> bool {
        let (before, after) = (&self.text[..at], &self.text[at + name.len()..]);
        if before.ends_with(is_name_letter) || after.starts_with(is_name_letter) {
            return false;
        }
        let word = before.trim_end().trim_end_matches('*').trim_end();
        if ["function", "class"]
            .iter()
            .any(|known| word.ends_with(known))
        {
            return true;
        }
        let after = after.trim_start();
        if let Some(value) = after.strip_prefix(['=', ':']) {
            let value = value.trim_start();
            let value = value.strip_prefix("async").map_or(value, str::trim_start);
            return value.starts_with("function") || value.starts_with("class") || is_arrow(value);
        }
        after.starts_with('(') && after_parameters(after).is_some_and(|body| body.starts_with('{'))
    }

    /// The offset of a place; lines and columns begin at 0, columns count UTF-16 units.
    fn offset(&self, line: u32, column: u32) -> Option<usize> {
        let start = *self.lines.get(line as usize)?;
        let end = self.lines.get(line as usize + 1).copied();
        let text = &self.text[start..end.unwrap_or(self.text.len())];
        Some(start + offset_in(text, column)?)
    }

    fn place(&self, at: usize) -> (u32, u32) {
        let line = self.lines.partition_point(|start| *start <= at) - 1;
        let column = self.text[self.lines[line]..at].encode_utf16().count();
        (line as u32, column as u32)
    }
}

/// The offset of a column that counts UTF-16 units.
fn offset_in(line: &str, column: u32) -> Option<usize> {
    let column = column as usize;
    let prefix = line.as_bytes().get(..column)?;
    if prefix.is_ascii() && line.is_char_boundary(column) {
        return Some(column);
    }
    let mut units = 0;
    for (at, letter) in line.char_indices() {
        if units >= column {
            return Some(at);
        }
        units += letter.len_utf16();
    }
    (units >= column).then_some(line.len())
}

fn is_name_letter(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_' || letter == '$'
}

/// The name that a declaration gives: of `function f() {`, of `const f = …`, of `f() {`.
fn name_at_start(mut text: &str) -> Option<&str> {
    loop {
        let end = text
            .find(|letter| !is_name_letter(letter))
            .unwrap_or(text.len());
        match &text[..end] {
            "" => return None,
            "function" | "class" | "async" | "const" | "let" | "var" | "export" | "default"
            | "static" => {
                text = text[end..]
                    .trim_start()
                    .trim_start_matches('*')
                    .trim_start();
            }
            name => return Some(name),
        }
    }
}

/// Says whether an arrow function begins here.
fn is_arrow(text: &str) -> bool {
    let after = if text.starts_with('(') {
        after_parameters(text)
    } else {
        text.find(|letter| !is_name_letter(letter))
            .filter(|end| *end > 0)
            .map(|end| text[end..].trim_start())
    };
    after.is_some_and(|after| after.starts_with("=>"))
}

/// What follows the parenthesis that closes the first one.
fn after_parameters(text: &str) -> Option<&str> {
    let mut depth = 0;
    for (at, byte) in text.bytes().enumerate().take(PARAMETERS_BYTES_MAX) {
        match byte {
            b'(' => depth += 1,
            b')' if depth == 1 => return Some(text[at + 1..].trim_start()),
            b')' => depth -= 1,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions() {
        let check = |text: &str, defined: bool| {
            let at = text.find("yw").unwrap();
            let minified = Minified::new(text.to_owned());
            assert_eq!(minified.is_definition("yw", at), defined, "{text}");
        };
        check("function yw(e){}", true);
        check("async function* yw(e){}", true);
        check("var yw=function(e){}", true);
        check("yw=async(e,(t))=>1", true);
        check("yw=e=>1", true);
        check("{yw(e,t=(1)){return}}", true);
        check("{yw:function(){}}", true);
        check("return yw(e,t)", false);
        check("yw=1", false);
        check("yw==function(){}", false);
        check("yw=(e,t)", false);
        check("xyw=function(){}", false);
        check("yw2=function(){}", false);
    }

    #[test]
    fn names_and_places() {
        let text = "/*ü😀*/function a(){b()}\nfunction b(){x.y}\n//# sourceMappingURL=a.js.map\n\n";
        let minified = Minified::new(text.to_owned());
        assert_eq!(minified.map_url(), Some("a.js.map"));
        assert!(minified.has_name_at("b", 0, 20));
        assert!(!minified.has_name_at("b", 0, 21));
        assert!(!minified.has_name_at("b", 99, 0));
        // 0:16 is the name `a`, 1:9 the name `b`.
        let map =
            br#"{"sources": ["s"], "names": ["checkout", "priceOf"], "mappings": "gBAAAA;SACAC"}"#;
        let map = SourceMap::parse(map).unwrap();
        let name = |name, line, column| minified.original_name(&map, name, line, column);
        assert_eq!(name("a", 0, 20).as_deref(), Some("checkout"));
        assert_eq!(name("b", 1, 13).as_deref(), Some("priceOf"));
        assert_eq!(name("c", 1, 13), None);
        assert_eq!(name("", 1, 13), None);
        assert_eq!(name("b", 7, 7), None);
        assert_eq!(name_at_start("async function  *f() {"), Some("f"));
        assert_eq!(name_at_start("const total = 1"), Some("total"));
        assert_eq!(name_at_start("=> 1"), None);
    }
}
