//! One source map: <https://tc39.es/ecma426/>.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;

/// A decoded map as text; larger ones are of programs that should be split anyway.
pub(crate) const MAP_BYTES_MAX: u64 = 32 << 20;
/// A mapping takes 20 bytes; a megabyte of minified code has some 200,000.
const MAPPINGS_MAX: usize = 2_000_000;
/// Lines of the minified file; more would be a file of line breaks.
const LINES_MAX: usize = 1_000_000;
/// Parts of an indexed map.
const SECTIONS_MAX: usize = 10_000;
const NONE: u32 = u32::MAX;

/// A source map that is ready to be asked.
#[derive(Debug, Default)]
pub(crate) struct SourceMap {
    sources: Vec<Source>,
    names: Vec<String>,
    mappings: Vec<Mapping>,
    /// Where each generated line begins in `mappings`, and the end.
    lines: Vec<usize>,
}

#[derive(Debug, Default)]
struct Source {
    /// `None` for code that no source has.
    name: Option<String>,
    content: Option<String>,
}

#[derive(Debug, Clone, Copy)]
struct Mapping {
    column: u32,
    source: u32,
    source_line: u32,
    source_column: u32,
    name: u32,
}

/// The place in a source that a place in the minified file comes from; lines and columns begin
/// at 0, and columns count UTF-16 units.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'m> {
    pub(crate) source: &'m str,
    pub(crate) content: Option<&'m str>,
    pub(crate) line: u32,
    pub(crate) column: u32,
    pub(crate) name: Option<&'m str>,
    /// The mapping begins exactly at the column that was asked for.
    pub(crate) exact: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire<'w> {
    #[serde(default)]
    source_root: Option<String>,
    #[serde(default)]
    sources: Vec<Option<String>>,
    #[serde(default)]
    sources_content: Option<Vec<Option<String>>>,
    #[serde(default)]
    names: Vec<Name>,
    #[serde(borrow, default)]
    mappings: Cow<'w, str>,
    #[serde(borrow, default)]
    sections: Vec<Section<'w>>,
}

/// Some tools write numbers among the names.
#[derive(Deserialize)]
#[serde(untagged)]
enum Name {
    Text(String),
    Other(IgnoredAny),
}

#[derive(Deserialize)]
struct Section<'w> {
    offset: Offset,
    #[serde(borrow)]
    map: Wire<'w>,
}

#[derive(Deserialize, Clone, Copy, Default)]
struct Offset {
    line: u32,
    column: u32,
}

impl SourceMap {
    /// Reads a map.
    ///
    /// # Errors
    ///
    /// Why it is none, in words for people.
    pub(crate) fn parse(bytes: &[u8]) -> Result<SourceMap, &'static str> {
        if bytes.len() as u64 > MAP_BYTES_MAX {
            return Err("the source map is too large");
        }
        // Servers may put a line before it that keeps it from being run as a script.
        let bytes = match bytes.strip_prefix(b")]}") {
            Some(rest) => &rest[rest.iter().position(|byte| *byte == b'\n').unwrap_or(0)..],
            None => bytes,
        };
        let wire: Wire<'_> =
            serde_json::from_slice(bytes).map_err(|_| "the source map is not JSON of its form")?;
        let mut map = SourceMap::default();
        if wire.sections.is_empty() {
            map.add(wire, Offset::default())?;
        } else {
            if wire.sections.len() > SECTIONS_MAX {
                return Err("the source map has too many sections");
            }
            for section in wire.sections {
                map.add(section.map, section.offset)?;
            }
        }
        map.lines.push(map.mappings.len());
        Ok(map)
    }

    /// Bytes in memory, about.
    pub(crate) fn cost(&self) -> usize {
        let texts = |text: &String| text.capacity() + size_of::<String>();
        let sources: usize = self
            .sources
            .iter()
            .map(|source| {
                let content = source.content.as_ref().map_or(0, texts);
                source.name.as_ref().map_or(0, texts) + content + size_of::<Source>()
            })
            .sum();
        sources
            + self.names.iter().map(texts).sum::<usize>()
            + self.mappings.capacity() * size_of::<Mapping>()
            + self.lines.capacity() * size_of::<usize>()
    }

    /// Returns where a place in the minified file comes from.
    pub(crate) fn lookup(&self, line: u32, column: u32) -> Option<Place<'_>> {
        let line = line as usize;
        let (start, end) = (*self.lines.get(line)?, *self.lines.get(line + 1)?);
        let mappings = &self.mappings[start..end];
        let after = mappings.partition_point(|mapping| mapping.column <= column);
        let mapping = mappings[..after].last()?;
        let source = self.sources.get(mapping.source as usize)?;
        Some(Place {
            source: source.name.as_deref()?,
            content: source.content.as_deref(),
            line: mapping.source_line,
            column: mapping.source_column,
            name: self.names.get(mapping.name as usize).map(String::as_str),
            exact: mapping.column == column,
        })
    }

    fn add(&mut self, wire: Wire<'_>, offset: Offset) -> Result<(), &'static str> {
        let (sources, names) = (self.sources.len(), self.names.len());
        let root = wire.source_root.unwrap_or_default();
        let mut contents = wire.sources_content.unwrap_or_default().into_iter();
        self.sources
            .extend(wire.sources.into_iter().map(|name| Source {
                name: name.map(|name| with_root(&root, name)),
                content: contents.next().flatten(),
            }));
        self.names
            .extend(wire.names.into_iter().map(|name| match name {
                Name::Text(name) => name,
                Name::Other(_) => String::new(),
            }));
        let first_line = offset.line as usize;
        if first_line >= LINES_MAX || first_line + 1 < self.lines.len() {
            return Err("the sections of the source map are out of order");
        }
        while self.lines.len() <= first_line {
            self.lines.push(self.mappings.len());
        }
        self.add_mappings(
            wire.mappings.as_bytes(),
            offset,
            sources as u32,
            names as u32,
        )
    }

    /// Decodes the `mappings` of a map: lines parted by `;`, mappings by `,`, numbers as VLQ, each
    /// relative to the one before.
    fn add_mappings(
        &mut self,
        text: &[u8],
        offset: Offset,
        sources: u32,
        names: u32,
    ) -> Result<(), &'static str> {
        let mut state = [0_i64; 4];
        for (number, line) in text.split(|byte| *byte == b';').enumerate() {
            let start = self.mappings.len();
            if number > 0 {
                if self.lines.len() >= LINES_MAX {
                    return Err("the source map has too many lines");
                }
                self.lines.push(start);
            }
            let mut column = if number == 0 {
                i64::from(offset.column)
            } else {
                0
            };
            let mut sorted = true;
            for segment in line.split(|byte| *byte == b',') {
                if segment.is_empty() {
                    continue;
                }
                let (fields, count) = decode(segment)?;
                column += fields[0];
                for (sum, field) in state.iter_mut().zip(&fields[1..count]) {
                    *sum += field;
                }
                let in_source = count >= 4;
                let base = |value: i64, base: u32| whole(value)?.checked_add(base).ok_or(RANGE);
                let mapping = Mapping {
                    column: whole(column)?,
                    source: if in_source {
                        base(state[0], sources)?
                    } else {
                        NONE
                    },
                    source_line: whole(state[1])?,
                    source_column: whole(state[2])?,
                    name: if count == 5 {
                        base(state[3], names)?
                    } else {
                        NONE
                    },
                };
                if self.mappings.len() == MAPPINGS_MAX {
                    return Err("the source map has too many mappings");
                }
                sorted &= self.mappings[start..]
                    .last()
                    .is_none_or(|last| last.column <= mapping.column);
                self.mappings.push(mapping);
            }
            if !sorted {
                self.mappings[start..].sort_by_key(|mapping| mapping.column);
            }
        }
        Ok(())
    }
}

fn with_root(root: &str, name: String) -> String {
    if root.is_empty() || name.starts_with('/') || name.contains("://") {
        return name;
    }
    format!("{}/{name}", root.trim_end_matches('/'))
}

const RANGE: &str = "a number in the source map is out of range";

fn whole(value: i64) -> Result<u32, &'static str> {
    u32::try_from(value).map_err(|_| RANGE)
}

/// Decodes the one, four or five numbers of a mapping; five bits a digit, the sign last.
fn decode(segment: &[u8]) -> Result<([i64; 5], usize), &'static str> {
    let (mut fields, mut count) = ([0; 5], 0);
    let (mut value, mut shift) = (0_i64, 0);
    for byte in segment {
        let digit = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return Err("the mappings have a letter that is no digit"),
        };
        if count == 5 || shift > 30 {
            return Err(RANGE);
        }
        value |= i64::from(digit & 31) << shift;
        shift += 5;
        if digit & 32 == 0 {
            fields[count] = if value & 1 == 1 {
                -(value >> 1)
            } else {
                value >> 1
            };
            count += 1;
            (value, shift) = (0, 0);
        }
    }
    match count {
        1 | 4 | 5 if shift == 0 => Ok((fields, count)),
        _ => Err("a mapping has neither one, four nor five numbers"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn map(value: &serde_json::Value) -> Result<SourceMap, &'static str> {
        SourceMap::parse(value.to_string().as_bytes())
    }

    fn at(map: &SourceMap, line: u32, column: u32) -> Option<(String, u32, u32, Option<&str>)> {
        let place = map.lookup(line, column)?;
        Some((
            place.source.to_owned(),
            place.line,
            place.column,
            place.name,
        ))
    }

    #[test]
    fn places() {
        // Line 1: 0 → a.js 0:0 (one), 4 → b.js 1:2, 8 → nothing; line 3: 0 → b.js 1:3.
        let map = map(&json!({
            "version": 3, "sourceRoot": "src/", "sources": ["a.js", "/b.js"], "names": ["one", 7],
            "sourcesContent": ["first", null], "mappings": "AAAAA,ICCE,I;;AAAC",
        }))
        .unwrap();
        assert_eq!(at(&map, 0, 0), Some(("src/a.js".into(), 0, 0, Some("one"))));
        assert_eq!(at(&map, 0, 3), Some(("src/a.js".into(), 0, 0, Some("one"))));
        assert_eq!(at(&map, 0, 7), Some(("/b.js".into(), 1, 2, None)));
        assert_eq!(at(&map, 0, 9), None);
        assert_eq!(at(&map, 1, 0), None);
        assert_eq!(at(&map, 2, 50), Some(("/b.js".into(), 1, 3, None)));
        assert_eq!(at(&map, 3, 0), None);
        assert_eq!(map.lookup(0, 0).unwrap().content, Some("first"));
        assert!(map.lookup(0, 4).unwrap().exact && !map.lookup(0, 5).unwrap().exact);
    }

    #[test]
    fn sections() {
        let part = |name: &str| json!({"version": 3, "sources": [name], "names": [name], "mappings": "AAAAA"});
        let map = map(&json!({"version": 3, "sections": [
            {"offset": {"line": 0, "column": 0}, "map": part("a")},
            {"offset": {"line": 0, "column": 10}, "map": part("b")},
            {"offset": {"line": 2, "column": 0}, "map": part("c")},
        ]}))
        .unwrap();
        assert_eq!(at(&map, 0, 9), Some(("a".into(), 0, 0, Some("a"))));
        assert_eq!(at(&map, 0, 10), Some(("b".into(), 0, 0, Some("b"))));
        assert_eq!(at(&map, 2, 0), Some(("c".into(), 0, 0, Some("c"))));
    }

    #[test]
    fn nonsense_is_refused() {
        let check = |mappings: &str| {
            let map = map(&json!({"sources": ["a"], "mappings": mappings}));
            assert!(map.is_err(), "{mappings}");
        };
        for mappings in [
            "AA",
            "A!",
            "AAAAAA",
            "g",
            "D",
            "AADA",
            "gggggggggA",
            "AA,AAAA",
        ] {
            check(mappings);
        }
        assert!(SourceMap::parse(b"<html>").is_err());
        assert!(SourceMap::parse(b")]}'\n{\"mappings\": \"A\"}").is_ok());
        // A source that is not there maps to nothing.
        let far = map(&json!({"sources": [], "mappings": "AAAA"})).unwrap();
        assert!(far.lookup(0, 0).is_none());
        let lines = ";".repeat(LINES_MAX + 1);
        assert!(map(&json!({"mappings": lines})).is_err());
    }
}
