//! Frames of minified JavaScript get the place and the name that a person wrote.
//!
//! A file is found by its debug id, else by release, build and address. What the client sent stays
//! beside it as `raw_stacktrace`; a frame that cannot be mapped stays as it is and is noted among
//! the event's `errors`, in Sentry's words:
//! <https://github.com/getsentry/sentry/blob/master/src/sentry/models/eventerror.py>.
//! An event is never lost by this.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use backstop_protocol::{Event, Frame, Stacktrace, in_app};
use memchr::memmem::Finder;
use serde_json::{Value, json};

use crate::model::ProjectId;
use crate::record::{BundleFile, FileKind};
use crate::sourcemap::bundle::{debug_id, unpack};
use crate::sourcemap::map::MAP_BYTES_MAX;
use crate::sourcemap::{Minified, Place, SourceMap, candidates, resolve};
use crate::store::{Error, Store};

/// Files that are kept ready to be asked; one is some 10 MB for a megabyte of minified code. The
/// one in use is kept even if it is larger, and no file can be more than about 120 MB.
const CACHE_BYTES_MAX: usize = 96 << 20;
/// Addresses that have no file are remembered as well.
const CACHE_ENTRIES_MAX: usize = 4_096;
/// What an entry takes beside its file.
const ENTRY_BYTES: usize = 256;
/// A minified file; it only helps to find names.
const SOURCE_BYTES_MAX: u64 = 16 << 20;
/// Files that the frames of one event may name; a page has fewer scripts.
const FILES_PER_EVENT_MAX: usize = 50;
/// Notes on one event.
const ERRORS_MAX: usize = 20;
/// An address beyond this is a file in itself (`data:`).
const URL_BYTES_MAX: usize = 2_048;
const CONTEXT_LINES: usize = 5;
/// Longer lines are cut; a line that long is not one that a person wrote.
const CONTEXT_LINE_CHARS_MAX: usize = 500;

/// Says whether a body may have an event with minified frames: then a file may have to be read,
/// which takes a thread of its own. The clients for browsers and for Node say either word.
pub(super) fn may_need_maps(body: &[u8]) -> bool {
    static WORDS: LazyLock<[Finder<'_>; 2]> =
        LazyLock::new(|| ["javascript", "sourcemap"].map(Finder::new));
    WORDS.iter().any(|word| word.find(body).is_some())
}

/// Applies source maps, and keeps those in use ready.
#[derive(Debug, Default)]
pub(super) struct Symbolicator {
    cache: Mutex<Cache>,
    /// One file is read at a time: that bounds memory, and no file is read twice at once.
    reading: Mutex<()>,
}

#[derive(Debug, Default)]
struct Cache {
    entries: HashMap<FileKey, Entry>,
    bytes: usize,
    clock: u64,
    /// The store's count of uploads when the entries were read.
    uploads: u64,
}

#[derive(Debug)]
struct Entry {
    file: Arc<File>,
    used: u64,
}

/// What names a minified file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum FileKey {
    DebugId(ProjectId, String),
    Release {
        project: ProjectId,
        release: String,
        dist: Option<String>,
        url: String,
    },
}

/// A minified file with its map, or why there is none.
#[derive(Debug)]
enum File {
    Mapped {
        map: SourceMap,
        map_url: String,
        minified: Option<Minified>,
    },
    /// Nobody uploaded the file or its map.
    Missing,
    /// What was uploaded is no map.
    Malformed { map_url: String },
}

impl File {
    fn cost(&self) -> usize {
        let file = match self {
            File::Mapped { map, minified, .. } => {
                map.cost() + minified.as_ref().map_or(0, Minified::cost)
            }
            File::Missing | File::Malformed { .. } => 0,
        };
        file + ENTRY_BYTES
    }
}

impl Symbolicator {
    /// Gives the frames of an event their original places, as far as maps were uploaded.
    pub(super) fn apply(&self, store: &Store, project: ProjectId, event: &mut Event) {
        let images = images_of(event.debug_meta.as_deref());
        let is_script = matches!(event.platform.as_deref(), Some("javascript" | "node"));
        if !is_script && images.is_empty() {
            return;
        }
        let mut run = Run {
            symbolicator: self,
            store,
            project,
            release: event.release.clone(),
            dist: event.dist.clone(),
            images,
            files: HashMap::new(),
            errors: Vec::new(),
        };
        for exception in &mut event.exception {
            if let Some(stacktrace) = &mut exception.stacktrace
                && let Some(raw) = run.stacktrace(stacktrace)
            {
                exception.raw_stacktrace.get_or_insert(raw);
            }
        }
        let threads = event.threads.iter_mut();
        let others = threads.map(|thread| (&mut thread.stacktrace, &mut thread.other));
        for (stacktrace, other) in others.chain([(&mut event.stacktrace, &mut event.other)]) {
            if let Some(stacktrace) = stacktrace
                && let Some(raw) = run.stacktrace(stacktrace)
            {
                other.entry("raw_stacktrace").or_insert_with(|| json!(raw));
            }
        }
        if run.errors.is_empty() {
            return;
        }
        let errors = event.other.entry("errors").or_insert_with(|| json!([]));
        if let Value::Array(errors) = errors {
            errors.append(&mut run.errors);
        }
    }

    fn cache(&self, store: &Store) -> MutexGuard<'_, Cache> {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let uploads = store.uploads();
        if cache.uploads != uploads {
            *cache = Cache {
                uploads,
                ..Cache::default()
            };
        }
        cache
    }

    fn file(&self, store: &Store, key: &FileKey) -> Arc<File> {
        if let Some(file) = self.cache(store).get(key) {
            return file;
        }
        let _reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        // Somebody else may have read it meanwhile; what is read now is as of this count.
        let uploads = {
            let mut cache = self.cache(store);
            if let Some(file) = cache.get(key) {
                return file;
            }
            cache.uploads
        };
        let file = match read(store, key) {
            Ok(file) => Arc::new(file),
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), "a source map cannot be read");
                return Arc::new(File::Missing);
            }
        };
        let mut cache = self.cache(store);
        if cache.uploads == uploads {
            cache.put(key.clone(), &file);
        }
        file
    }
}

impl Cache {
    fn get(&mut self, key: &FileKey) -> Option<Arc<File>> {
        self.clock += 1;
        let entry = self.entries.get_mut(key)?;
        entry.used = self.clock;
        Some(Arc::clone(&entry.file))
    }

    fn put(&mut self, key: FileKey, file: &Arc<File>) {
        self.clock += 1;
        self.bytes += file.cost();
        let entry = Entry {
            file: Arc::clone(file),
            used: self.clock,
        };
        if let Some(old) = self.entries.insert(key, entry) {
            self.bytes -= old.file.cost();
        }
        while self.entries.len() > 1
            && (self.bytes > CACHE_BYTES_MAX || self.entries.len() > CACHE_ENTRIES_MAX)
        {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.used);
            let Some(key) = oldest.map(|(key, _)| key.clone()) else {
                return;
            };
            if let Some(old) = self.entries.remove(&key) {
                self.bytes -= old.file.cost();
            }
        }
    }
}

/// Reads a minified file and its map.
fn read(store: &Store, key: &FileKey) -> Result<File, Error> {
    let (source, map) = match key {
        FileKey::DebugId(project, id) => (
            store.file_of_debug_id(*project, id, FileKind::Source)?,
            store.file_of_debug_id(*project, id, FileKind::Map)?,
        ),
        FileKey::Release {
            project,
            release,
            dist,
            url,
        } => {
            let find = |url: &str| -> Result<Option<BundleFile>, Error> {
                for url in candidates(url) {
                    let file = store.file_of_release(*project, release, dist.as_deref(), &url)?;
                    if file.is_some() {
                        return Ok(file);
                    }
                }
                Ok(None)
            };
            let source = find(url)?;
            let map_url = source.as_ref().and_then(|source| {
                let said = || {
                    let minified = minified(source)?;
                    minified.map_url().map(|said| resolve(&source.url, said))
                };
                source.map_url.clone().or_else(said)
            });
            let map = match map_url.filter(|url| url.len() <= URL_BYTES_MAX) {
                Some(url) => find(&url)?,
                None => None,
            };
            (source, map)
        }
    };
    let Some(map) = map else {
        return Ok(File::Missing);
    };
    let parsed = unpack(map.packing, &map.body, MAP_BYTES_MAX);
    Ok(match parsed.and_then(|bytes| SourceMap::parse(&bytes)) {
        Ok(parsed) => File::Mapped {
            map: parsed,
            map_url: map.url,
            minified: source.as_ref().and_then(minified),
        },
        Err(why) => {
            tracing::warn!(url = map.url, why, "a source map cannot be used");
            File::Malformed { map_url: map.url }
        }
    })
}

fn minified(source: &BundleFile) -> Option<Minified> {
    let bytes = unpack(source.packing, &source.body, SOURCE_BYTES_MAX).ok()?;
    Some(Minified::new(String::from_utf8(bytes).ok()?))
}

/// The debug ids of an event's files, by the address that frames have.
fn images_of(debug_meta: Option<&Value>) -> HashMap<String, String> {
    let images = debug_meta
        .and_then(|meta| meta.get("images"))
        .and_then(Value::as_array);
    let of_map = |image: &Value| {
        let text = |name: &str| image.get(name).and_then(Value::as_str);
        if text("type") != Some("sourcemap") {
            return None;
        }
        Some((text("code_file")?.to_owned(), debug_id(text("debug_id")?)?))
    };
    images.into_iter().flatten().filter_map(of_map).collect()
}

/// The work on one event.
struct Run<'r> {
    symbolicator: &'r Symbolicator,
    store: &'r Store,
    project: ProjectId,
    release: Option<String>,
    dist: Option<String>,
    images: HashMap<String, String>,
    files: HashMap<String, Option<Arc<File>>>,
    errors: Vec<Value>,
}

impl Run<'_> {
    /// Maps the frames of a stack; returns it as it was if anything changed.
    fn stacktrace(&mut self, stacktrace: &mut Stacktrace) -> Option<Stacktrace> {
        let files: Vec<_> = stacktrace
            .frames
            .iter()
            .map(|frame| self.file_of(frame))
            .collect();
        let mut raw: Option<Vec<Frame>> = None;
        for (at, file) in files.iter().enumerate() {
            let Some(file) = file else { continue };
            // The caller is the frame before; it still has to be asked in the minified file.
            let caller = match (at.checked_sub(1), &raw) {
                (None, _) => None,
                (Some(before), Some(raw)) => Some(&raw[before]),
                (Some(before), None) => Some(&stacktrace.frames[before]),
            };
            let caller = caller.zip(
                at.checked_sub(1)
                    .and_then(|before| files[before].as_deref()),
            );
            let mapped = self.frame(&stacktrace.frames[at], file, caller);
            if let Some(mapped) = mapped {
                let raw = raw.get_or_insert_with(|| raw_of(&stacktrace.frames));
                debug_assert_eq!(raw.len(), stacktrace.frames.len());
                stacktrace.frames[at] = mapped;
            }
        }
        raw.map(|frames| Stacktrace {
            frames,
            ..Stacktrace::default()
        })
    }

    /// Finds the file of a frame; `None` for frames that need no map.
    fn file_of(&mut self, frame: &Frame) -> Option<Arc<File>> {
        let url = address(frame)?;
        frame.lineno?;
        if let Some(known) = self.files.get(url) {
            return known.clone();
        }
        let is_remote = url.contains("://") && !url.starts_with("webpack:");
        let key = match (self.images.get(url), &self.release) {
            (Some(id), _) => Some(FileKey::DebugId(self.project, id.clone())),
            (None, Some(release)) if is_remote => Some(FileKey::Release {
                project: self.project,
                release: release.clone(),
                dist: self.dist.clone(),
                url: url.to_owned(),
            }),
            (None, _) => None,
        };
        let file = match key {
            Some(key) if self.files.len() < FILES_PER_EVENT_MAX => {
                Some(self.symbolicator.file(self.store, &key))
            }
            // Without a release nobody could have uploaded it.
            None if is_remote => Some(Arc::new(File::Missing)),
            _ => None,
        };
        match file.as_deref() {
            Some(File::Missing) => self.note(&json!({
                "type": "js_no_source", "symbolicator_type": "missing_source", "url": url,
            })),
            Some(File::Malformed { map_url }) => self.note(&json!({
                "type": "js_invalid_source", "symbolicator_type": "malformed_sourcemap",
                "url": map_url,
            })),
            _ => {}
        }
        self.files.insert(url.to_owned(), file.clone());
        file
    }

    fn note(&mut self, error: &Value) {
        if self.errors.len() < ERRORS_MAX && !self.errors.contains(error) {
            self.errors.push(error.clone());
        }
    }

    /// Returns the frame as it was written, or notes why it cannot be said.
    fn frame(
        &mut self,
        frame: &Frame,
        file: &File,
        caller: Option<(&Frame, &File)>,
    ) -> Option<Frame> {
        let File::Mapped {
            map,
            map_url,
            minified,
        } = file
        else {
            return None;
        };
        let url = address(frame)?;
        let place = position(frame).and_then(|(line, column)| map.lookup(line, column));
        let Some(place) = place else {
            self.note(&json!({
                "type": "js_invalid_sourcemap_location",
                "symbolicator_type": "invalid_location",
                "source": url, "row": frame.lineno, "column": frame.colno,
            }));
            return None;
        };
        let mut mapped = frame.clone();
        mapped.lineno = Some(u64::from(place.line) + 1);
        mapped.colno = Some(u64::from(place.column) + 1);
        mapped.abs_path = Some(resolve(url, place.source));
        mapped.filename = Some(shown_name(place.source));
        mapped.module = frame.module.as_ref().map(|_| module_of(place.source));
        let name = minified
            .as_ref()
            .and_then(|minified| self.name(frame, map, minified, caller));
        if name.is_some() {
            mapped.function = name;
        }
        set_context(&mut mapped, &place);
        if mapped.context_line.is_none() {
            self.note(&json!({
                "type": "js_missing_sources_content",
                "symbolicator_type": "missing_source_content",
                "source": place.source, "sourcemap": map_url,
            }));
        }
        // The client's word was about the minified file.
        let by_names = in_app(Some("javascript"), &mapped);
        let is_own = !place.source.starts_with("webpack:")
            || mapped
                .filename
                .as_deref()
                .is_some_and(|name| name.starts_with("./"));
        mapped.in_app = Some(by_names.unwrap_or(is_own));
        let data = mapped.data.get_or_insert_with(|| json!({}));
        if let Value::Object(data) = data {
            data.insert("symbolicated".to_owned(), json!(true));
            data.insert("sourcemap".to_owned(), json!(map_url));
            let by = if self.images.contains_key(url) {
                "debug-id"
            } else {
                "release"
            };
            data.insert("resolved_with".to_owned(), json!(by));
        }
        Some(mapped)
    }

    /// The function's original name: where it got its minified one, else what its caller calls it.
    fn name(
        &self,
        frame: &Frame,
        map: &SourceMap,
        minified: &Minified,
        caller: Option<(&Frame, &File)>,
    ) -> Option<String> {
        let function = frame.function.as_deref()?;
        let short = function.rsplit(['.', ' ']).next().unwrap_or(function);
        let (line, column) = position(frame)?;
        if let Some(name) = minified.original_name(map, short, line, column) {
            return Some(name);
        }
        let (caller, File::Mapped { map, minified, .. }) = caller? else {
            return None;
        };
        let (line, column) = position(caller)?;
        if !minified.as_ref()?.has_name_at(short, line, column) {
            return None;
        }
        let place = map.lookup(line, column).filter(|place| place.exact)?;
        place
            .name
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
    }
}

/// Variables stay with the mapped frames; everything else is kept twice.
fn raw_of(frames: &[Frame]) -> Vec<Frame> {
    let raw = |frame: &Frame| Frame {
        function: frame.function.clone(),
        module: frame.module.clone(),
        filename: frame.filename.clone(),
        abs_path: frame.abs_path.clone(),
        lineno: frame.lineno,
        colno: frame.colno,
        in_app: frame.in_app,
        ..Frame::default()
    };
    frames.iter().map(raw).collect()
}

/// The address of a frame's file, if it can have a map.
fn address(frame: &Frame) -> Option<&str> {
    let url = frame.abs_path.as_deref().or(frame.filename.as_deref())?;
    let is_file = url.len() <= URL_BYTES_MAX
        && url.contains('/')
        && !["node:", "data:", "blob:", "native", "<"]
            .iter()
            .any(|start| url.starts_with(start))
        && !url.contains("-extension://");
    // The client may have applied a map itself.
    let is_mapped = frame
        .data
        .as_ref()
        .is_some_and(|data| data.get("sourcemap").is_some());
    (is_file && !is_mapped).then_some(url)
}

/// A frame's place in its file, beginning at 0.
fn position(frame: &Frame) -> Option<(u32, u32)> {
    let zero_based = |number: Option<u64>| u32::try_from(number?.checked_sub(1)?).ok();
    Some((zero_based(frame.lineno)?, zero_based(frame.colno)?))
}

/// A source's name for people: without what a bundler puts before it.
fn shown_name(source: &str) -> String {
    let Some(path) = source.strip_prefix("webpack://") else {
        return source
            .split(['?', '#'])
            .next()
            .unwrap_or_default()
            .to_owned();
    };
    if let Some((_, path)) = path.split_once("/~/") {
        return format!("~/{path}");
    }
    // `webpack:///./src/a.js` and `webpack://shop/./src/a.js`: what follows the name of the bundle.
    let path = path.split_once('/').map_or(path, |(_, path)| path);
    path.split(['?', '#']).next().unwrap_or_default().to_owned()
}

/// The module that a source is: its path without the way up and the ending.
fn module_of(source: &str) -> String {
    let name = shown_name(source);
    let path = name.trim_start_matches(['.', '/', '~']);
    let file = path.rfind('/').map_or(0, |at| at + 1);
    let end = path[file..].rfind('.').map_or(path.len(), |at| file + at);
    path[..end].to_owned()
}

fn set_context(frame: &mut Frame, place: &Place<'_>) {
    let at = place.line as usize;
    let first = at.saturating_sub(CONTEXT_LINES);
    let mut lines = place
        .content
        .unwrap_or_default()
        .lines()
        .skip(first)
        .map(|line| {
            let end = line.char_indices().nth(CONTEXT_LINE_CHARS_MAX);
            line[..end.map_or(line.len(), |(end, _)| end)].to_owned()
        });
    *frame.pre_context = lines.by_ref().take(at - first).collect();
    frame.context_line = lines.next();
    *frame.post_context = lines.take(CONTEXT_LINES).collect();
    if frame.context_line.is_none() {
        *frame.pre_context = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_sources() {
        let check = |source: &str, shown: &str, module: &str| {
            assert_eq!(
                (shown_name(source).as_str(), module_of(source).as_str()),
                (shown, module)
            );
        };
        check("../src/cart.js", "../src/cart.js", "src/cart");
        check("webpack:///./src/a.b.ts?1f2e", "./src/a.b.ts", "src/a.b");
        check("webpack://shop/./src/a.ts", "./src/a.ts", "src/a");
        check(
            "webpack:///~/react/index.js",
            "~/react/index.js",
            "react/index",
        );
        check(
            "webpack://shop/node_modules/x/i.js",
            "node_modules/x/i.js",
            "node_modules/x/i",
        );
    }

    #[test]
    fn files_are_forgotten_when_there_are_too_many() {
        let mut cache = Cache::default();
        let file = || {
            let map = br#"{"sources": ["s"], "mappings": "AAAA"}"#;
            let text = "x".repeat(CACHE_BYTES_MAX / 3);
            Arc::new(File::Mapped {
                map: SourceMap::parse(map).unwrap(),
                map_url: String::new(),
                minified: Some(Minified::new(text)),
            })
        };
        let key = |id: &str| FileKey::DebugId(ProjectId(1), id.to_owned());
        for id in ["a", "b"] {
            cache.put(key(id), &file());
        }
        assert!(cache.get(&key("a")).is_some());
        cache.put(key("c"), &file());
        assert!(cache.get(&key("b")).is_none(), "it was used least");
        assert!(cache.get(&key("a")).is_some() && cache.get(&key("c")).is_some());
        assert!(cache.bytes <= CACHE_BYTES_MAX);
        for id in 0..CACHE_ENTRIES_MAX + 10 {
            cache.put(key(&id.to_string()), &Arc::new(File::Missing));
        }
        assert!(cache.entries.len() <= CACHE_ENTRIES_MAX);
        let cost: usize = cache.entries.values().map(|entry| entry.file.cost()).sum();
        assert_eq!(cache.bytes, cost);
    }
}
