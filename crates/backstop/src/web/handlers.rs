//! Which handler answers an error: the tables of the scopes, and [`find`].

use std::any::TypeId;
use std::error::Error as StdError;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

use crate::error::{CHAIN_MAX, source_of};
use crate::io::families_of;
use crate::kind::{self, Key, KeyHasher, KeyMap, Known};
use crate::{Error, HttpError, Panic};

/// What a handler is registered for.
#[derive(Debug, Clone)]
pub(crate) enum On {
    /// A status code.
    Code(u16),
    /// A type, kind, family, any HTTP error or any error.
    Kind(Selector),
}

impl On {
    /// A kind that was made at run time, or one that was declared.
    pub(crate) fn kind(kind: &kind::Kind) -> Self {
        Self::Kind(Selector {
            key: kind.key(),
            name: kind.name().to_owned(),
            code: kind.status_code(),
            is: None,
            exact: false,
        })
    }
}

/// What the first argument of a handler says about the errors that it takes.
#[derive(Debug, Clone)]
pub(crate) struct Selector {
    pub(crate) key: Key,
    pub(crate) name: String,
    /// The code of the kind; such a handler and the code's handler are one slot for its standard
    /// type.
    pub(crate) code: Option<u16>,
    /// Tells whether an error in a chain of sources is of this type.
    pub(crate) is: Option<fn(&(dyn StdError + 'static)) -> bool>,
    /// Only the error itself: neither its children nor what it caused.
    pub(crate) exact: bool,
}

/// The handlers of one scope.
#[derive(Debug, Clone)]
pub(crate) struct Table<H> {
    /// For errors with a code: by code, nearest kind first, the code's own handler last.
    codes: Filtered<u16, Coded<H>>,
    /// For kinds without a code.
    kinds: Keys<H>,
    /// The same and those with a code, for errors in a chain of sources.
    hidden: Vec<Hidden<H>>,
}

#[derive(Debug, Clone)]
struct Coded<H> {
    kinds: Keys<H>,
    any: Option<H>,
}

#[derive(Debug, Clone)]
struct Hidden<H> {
    selector: Selector,
    handler: H,
}

type Keys<H> = Filtered<Key, Registered<H>>;

/// A map that knows of most keys which it does not have without looking.
///
/// An error is looked up in every scope by every kind that it is of, and is found once.
#[derive(Debug, Clone)]
struct Filtered<K, V> {
    map: KeyMap<K, V>,
    /// One bit for each key's [`slot`]; where it is off, no such key is there.
    slots: [u64; 4],
}

/// The place of a key among 256.
fn slot(key: &impl Hash) -> (usize, u64) {
    let mut hasher = KeyHasher::default();
    key.hash(&mut hasher);
    let [slot, ..] = hasher.finish().to_be_bytes();
    (usize::from(slot >> 6), 1 << (slot & 63))
}

impl<K: Hash + Eq, V> Filtered<K, V> {
    fn get(&self, key: &K) -> Option<&V> {
        let (word, bit) = slot(key);
        if self.slots[word] & bit == 0 {
            return None;
        }
        self.map.get(key)
    }

    fn insert(&mut self, key: K, value: V) -> Option<V> {
        self.note(&key);
        self.map.insert(key, value)
    }

    fn note(&mut self, key: &K) {
        let (word, bit) = slot(key);
        self.slots[word] |= bit;
    }

    fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// The same keys with other values.
    fn map<T>(self, mut map: impl FnMut(V) -> T) -> Filtered<K, T> {
        Filtered {
            map: self
                .map
                .into_iter()
                .map(|(key, value)| (key, map(value)))
                .collect(),
            slots: self.slots,
        }
    }
}

impl<K, V> Default for Filtered<K, V> {
    fn default() -> Self {
        Self {
            map: KeyMap::default(),
            slots: [0; 4],
        }
    }
}

#[derive(Debug, Clone)]
struct Registered<H> {
    handler: H,
    exact: bool,
}

impl<H> Default for Table<H> {
    fn default() -> Self {
        Self {
            codes: Filtered::default(),
            kinds: Keys::default(),
            hidden: Vec::new(),
        }
    }
}

impl<H: Clone> Table<H> {
    /// Registers a handler; a later one for the same slot replaces an earlier one, which is given
    /// back.
    pub(crate) fn insert(&mut self, on: On, handler: H) -> Option<H> {
        let selector = match on {
            On::Code(code) => {
                // One slot with the standard type, whose handler ends here for causes as well.
                self.hide_no_more(kind::Kind::of_code(code).key());
                return self.coded(code).any.replace(handler);
            }
            On::Kind(selector) => selector,
        };
        self.hide_no_more(selector.key);
        if !selector.exact && selector.key != Key::ANY && selector.key != Key::HTTP {
            self.hidden.push(Hidden {
                selector: selector.clone(),
                handler: handler.clone(),
            });
        }
        let registered = Registered {
            handler,
            exact: selector.exact,
        };
        let replaced = match selector.code {
            // The standard type of a code and the code are one slot.
            Some(code) if kind::Kind::of_code(code).key() == selector.key && !selector.exact => {
                return self.coded(code).any.replace(registered.handler);
            }
            Some(code) => self.coded(code).kinds.insert(selector.key, registered),
            None => self.kinds.insert(selector.key, registered),
        };
        replaced.map(|registered| registered.handler)
    }

    /// Forgets who takes errors that were caused by one of this kind.
    fn hide_no_more(&mut self, key: Key) {
        self.hidden.retain(|hidden| hidden.selector.key != key);
    }

    fn coded(&mut self, code: u16) -> &mut Coded<H> {
        self.codes.note(&code);
        self.codes.map.entry(code).or_insert_with(|| Coded {
            kinds: Keys::default(),
            any: None,
        })
    }

    /// Adds the handlers of another table; they replace those of the same slots, which are given
    /// back, each with the one that took its place.
    pub(crate) fn absorb(&mut self, other: &Self) -> Vec<(H, H)> {
        let mut replaced = Vec::new();
        for (&code, coded) in &other.codes.map {
            if let Some(handler) = &coded.any {
                self.hide_no_more(kind::Kind::of_code(code).key());
                let earlier = self.coded(code).any.replace(handler.clone());
                replaced.extend(earlier.map(|earlier| (earlier, handler.clone())));
            }
            absorb_keys(&mut self.coded(code).kinds, &coded.kinds, &mut replaced);
        }
        absorb_keys(&mut self.kinds, &other.kinds, &mut replaced);
        for hidden in &other.hidden {
            self.hide_no_more(hidden.selector.key);
            self.hidden.push(hidden.clone());
        }
        replaced
    }

    /// Applies a function to every handler.
    pub(crate) fn map<T: Clone>(self, map: impl Fn(H) -> T) -> Table<T> {
        let keys = |keys: Keys<H>| {
            keys.map(|registered| Registered {
                handler: map(registered.handler),
                exact: registered.exact,
            })
        };
        Table {
            codes: self.codes.map(|coded| Coded {
                kinds: keys(coded.kinds),
                any: coded.any.map(&map),
            }),
            kinds: keys(self.kinds),
            hidden: self
                .hidden
                .into_iter()
                .map(|hidden| Hidden {
                    selector: hidden.selector,
                    handler: map(hidden.handler),
                })
                .collect(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.codes.is_empty() && self.kinds.is_empty()
    }

    /// Tells whether there are no handlers but those of codes.
    fn is_without_kinds(&self) -> bool {
        self.kinds.is_empty() && self.hidden.is_empty()
    }

    /// The types that handlers are registered for.
    fn types(&self) -> impl Iterator<Item = TypeId> {
        let coded = self
            .codes
            .map
            .values()
            .flat_map(|coded| coded.kinds.map.keys());
        let keys = coded.chain(self.kinds.map.keys());
        keys.filter_map(|key| match key {
            Key::Type(id) => Some(*id),
            Key::Made(_) => None,
        })
    }

    /// A handler for errors with this code: the nearest kind that has it, else the code's own.
    fn by_code(&self, code: u16, line: &Line<'_>) -> Option<(&H, Why)> {
        let coded = self.codes.get(&code)?;
        if !coded.kinds.is_empty()
            && let Some(found) = nearest(&coded.kinds, line)
        {
            return Some((found, Why::Kind));
        }
        coded.any.as_ref().map(|handler| (handler, Why::Code))
    }

    /// A handler for the error's own kinds, then for what it was caused by, then for any error.
    fn by_kind(&self, line: &Line<'_>, subject: &Subject<'_>) -> Option<(&H, Why)> {
        if self.is_without_kinds() {
            return None;
        }
        if let Some(found) = nearest(&self.kinds, line) {
            return Some((found, Why::Kind));
        }
        if line.own.is_none()
            && let Some(handler) = self.by_type(subject.error)
        {
            return Some((handler, Why::Kind));
        }
        if let Some(cause) = subject.cause
            && let Some(handler) = self.by_cause(cause)
        {
            return Some((handler, Why::Cause));
        }
        if subject.code.is_some()
            && let Some(registered) = self.kinds.get(&Key::HTTP)
        {
            return Some((&registered.handler, Why::Http));
        }
        self.kinds
            .get(&Key::ANY)
            .map(|registered| (&registered.handler, Why::Any))
    }

    /// For an outermost error whose type is hidden in a box.
    fn by_type(&self, error: &(dyn StdError + 'static)) -> Option<&H> {
        self.hidden
            .iter()
            .find(|hidden| {
                hidden.selector.code.is_none() && hidden.selector.is.is_some_and(|is| is(error))
            })
            .map(|hidden| &hidden.handler)
    }

    fn by_cause(&self, cause: &(dyn StdError + 'static)) -> Option<&H> {
        if self.hidden.is_empty() {
            return None;
        }
        std::iter::successors(Some(cause), |cause| source_of(*cause))
            .take(CHAIN_MAX)
            .find_map(|cause| self.by_hidden(cause))
    }

    fn by_hidden(&self, error: &(dyn StdError + 'static)) -> Option<&H> {
        let by_key = |key: Key| {
            self.hidden
                .iter()
                .find(|hidden| hidden.selector.key == key)
                .map(|hidden| &hidden.handler)
        };
        if let Some(error) = error.downcast_ref::<std::io::Error>() {
            let mut keys = families_of(error.kind()).iter().copied();
            if let Some(found) = keys.find_map(by_key) {
                return Some(found);
            }
        }
        if let Some(hidden) = self
            .hidden
            .iter()
            .find(|hidden| hidden.selector.is.is_some_and(|is| is(error)))
        {
            return Some(&hidden.handler);
        }
        let kind = kind::known_for(error)?.kind();
        kind.line().iter().copied().find_map(by_key)
    }
}

fn absorb_keys<H: Clone>(mine: &mut Keys<H>, other: &Keys<H>, replaced: &mut Vec<(H, H)>) {
    for (&key, registered) in &other.map {
        if let Some(earlier) = mine.insert(key, registered.clone()) {
            replaced.push((earlier.handler, registered.handler.clone()));
        }
    }
}

fn nearest<'h, H>(keys: &'h Keys<H>, line: &Line<'_>) -> Option<&'h H> {
    if keys.is_empty() {
        return None;
    }
    let handler = |key: Key| {
        let registered = keys.get(&key)?;
        (!registered.exact || line.own == Some(key)).then_some(&registered.handler)
    };
    let families = line.families.iter().copied();
    families
        .chain(line.declared.iter().copied())
        .find_map(handler)
        .or_else(|| line.bare.and_then(handler))
}

/// The keys of the error itself, nearest first.
struct Line<'a> {
    /// The family of an `io::Error`.
    families: &'a [Key],
    /// The kind that was declared or made, with its ancestors.
    declared: &'a [Key],
    /// The error's own type.
    own: Option<Key>,
    /// The same, where nothing was declared for it.
    bare: Option<Key>,
}

impl<'a> Line<'a> {
    fn of(error: &'a Error) -> Self {
        let families = error
            .io()
            .map_or(&[][..], |error| families_of(error.kind()));
        let declared = error.kind().map_or(&[][..], kind::Kind::line);
        Self::new(families, declared, error.type_key())
    }

    fn new(families: &'a [Key], declared: &'a [Key], own: Option<Key>) -> Self {
        Self {
            families,
            declared,
            own,
            bare: own.filter(|own| !declared.contains(own)),
        }
    }
}

/// The error that a handler is wanted for.
struct Subject<'a> {
    error: &'a (dyn StdError + 'static),
    code: Option<u16>,
    /// What it was caused by, unless that was asked before.
    cause: Option<&'a (dyn StdError + 'static)>,
}

/// Why a handler was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// Registered for the error's code.
    Code,
    /// Registered for the error's kind or one of its parents.
    Kind,
    /// Registered for something that the error was caused by.
    Cause,
    /// Registered for any HTTP error.
    Http,
    /// Registered for any error.
    Any,
}

/// A handler that was found: the scope's place in the list, and why.
#[derive(Debug)]
pub(crate) struct Found<'h, H> {
    pub(crate) handler: &'h H,
    pub(crate) scope: usize,
    /// Found in the first pass, by the error's code.
    pub(crate) by_code: bool,
    pub(crate) why: Why,
}

/// Finds the handler that answers an error.
///
/// `scopes` are the tables of the matched route: innermost blueprint first, the app last.
///
/// 1. If the error has a code: for each scope, the handler for that code (or for a kind that has
///    it, nearest first).
/// 2. Then for each scope: the handler nearest in the error's line of descent, which is its own
///    type, declared parents, families of `io::Error`, the same for each source, any HTTP error,
///    any error.
///
/// So the code beats the scope, and the scope beats how specific a handler is.
/// Follows Flask's `_find_error_handler`:
/// <https://flask.palletsprojects.com/en/stable/errorhandling/#handling>.
pub(crate) fn find<'h, H: Clone + 'h, T: Deref<Target = Table<H>>>(
    scopes: &'h [T],
    error: &Error,
) -> Option<Found<'h, H>> {
    let line = Line::of(error);
    let code = error.code_of_kind();
    if let Some(code) = code {
        for (scope, table) in scopes.iter().enumerate() {
            if let Some((handler, why)) = table.by_code(code, &line) {
                return Some(Found {
                    handler,
                    scope,
                    by_code: true,
                    why,
                });
            }
        }
    }
    let subject = Subject {
        error: error.as_dyn(),
        code,
        // What a 500 was made of has been looked up before; it is not asked for again.
        cause: match error.original() {
            Some(_) => None,
            None => source_of(error.as_dyn()),
        },
    };
    for (scope, table) in scopes.iter().enumerate() {
        if let Some((handler, why)) = table.by_kind(&line, &subject) {
            return Some(Found {
                handler,
                scope,
                by_code: false,
                why,
            });
        }
    }
    None
}

/// What [`find`] finds for errors of which it needs to know no more than their type.
///
/// Those are nearly all for which there is a handler of their own type, parents or code.
pub(crate) type Prepared<H> = KeyMap<TypeId, H>;

/// Looks up every type that was declared, or that somebody registered a handler for.
///
/// `takes` tells which of those with what is known of them are wanted.
pub(crate) fn prepare<H: Clone, T: Deref<Target = Table<H>>>(
    scopes: &[T],
    takes: impl Fn(Option<&'static Known>, Option<u16>) -> bool,
) -> Prepared<H> {
    let declared = kind::all_known().map(|(id, _)| id);
    let registered = scopes.iter().flat_map(|table| table.types());
    let mut prepared = Prepared::default();
    for id in declared.chain(registered) {
        let known = kind::known(id);
        let Some(code) = known.map_or(Some(None), Known::common_code) else {
            continue;
        };
        if !is_more_than_its_type(id)
            && takes(known, code)
            && let Some(handler) = find_by_type(scopes, id, known, code)
        {
            prepared.insert(id, handler.clone());
        }
    }
    prepared
}

/// Types whose values differ in what decides about them.
fn is_more_than_its_type(id: TypeId) -> bool {
    [
        TypeId::of::<Error>(),
        TypeId::of::<HttpError>(),
        TypeId::of::<Panic>(),
        TypeId::of::<std::io::Error>(),
    ]
    .contains(&id)
}

/// The handler of every error of a type, as [`find`] does it; `None` also where it depends on what
/// an error was caused by.
fn find_by_type<'h, H: Clone + 'h, T: Deref<Target = Table<H>>>(
    scopes: &'h [T],
    id: TypeId,
    known: Option<&Known>,
    code: Option<u16>,
) -> Option<&'h H> {
    let declared = known.map_or(&[][..], |known| known.kind().line());
    let line = Line::new(&[], declared, Some(Key::Type(id)));
    if let Some(code) = code {
        let mut found = scopes.iter().filter_map(|table| table.by_code(code, &line));
        if let Some((handler, _)) = found.next() {
            return Some(handler);
        }
    }
    let table = scopes.iter().find(|table| !table.is_without_kinds())?;
    nearest(&table.kinds, &line)
}

/// The look-up alone, for the bench.
#[doc(hidden)]
#[derive(Debug)]
pub struct Lookup(Vec<Arc<Table<usize>>>);

impl Lookup {
    /// Spreads a handler for each kind over scopes, and one for each of twenty codes.
    #[doc(hidden)]
    pub fn new(kinds: &[kind::Kind], scopes: usize) -> Self {
        let mut tables: Vec<Table<usize>> = (0..scopes).map(|_| Table::default()).collect();
        for (number, kind) in kinds.iter().enumerate() {
            tables[number * scopes / kinds.len()].insert(On::kind(kind), number);
        }
        for (number, code) in (400..410).chain(500..510).enumerate() {
            tables[number % scopes].insert(On::Code(code), number);
        }
        Self(tables.into_iter().map(Arc::new).collect())
    }

    #[doc(hidden)]
    pub fn find(&self, error: &Error) -> Option<usize> {
        find(&self.0, error).map(|found| *found.handler)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::errors::{BadRequest, BadRequestKeyError, NotFound};
    use crate::web::caught::Catch;

    #[derive(Debug, Clone, Copy)]
    struct Undeclared;
    #[derive(Debug, Clone, Copy)]
    struct Base;
    #[derive(Debug, Clone, Copy)]
    struct Child;
    #[derive(Debug, Clone, Copy)]
    struct Varied(u16);

    macro_rules! errors {
        ($($type:ty),+) => {$(
            impl std::fmt::Display for $type {
                fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    std::fmt::Debug::fmt(self, f)
                }
            }
            impl StdError for $type {}
        )+};
    }

    errors!(Undeclared, Base, Child, Varied);
    crate::error_kind!(Base);
    crate::error_kind!(Child: Base);
    crate::error_kind!(Varied: Base; code = |error: &Varied| error.0);

    /// Registers by type.
    fn on<T: Catch>() -> On {
        On::Kind(T::selector().0)
    }

    /// Handlers for several things, each in one of two scopes or in none, as the digits of a number say.
    fn scopes(choice: usize) -> Vec<Arc<Table<usize>>> {
        let mut tables = [Table::default(), Table::default()];
        let all = [
            on::<Undeclared>(),
            on::<Base>(),
            on::<Child>(),
            on::<Varied>(),
            on::<BadRequest>(),
            on::<HttpError>(),
            on::<Error>(),
            on::<std::io::Error>(),
            On::Code(404),
        ];
        let mut rest = choice;
        for (number, on) in all.into_iter().enumerate() {
            if let Some(table) = tables.get_mut(rest % 3) {
                table.insert(on, number);
            }
            rest /= 3;
        }
        tables.map(Arc::new).into()
    }

    #[test]
    fn what_is_prepared_is_what_is_found() {
        let errors = || {
            [
                Error::from(Undeclared),
                Error::from(Base),
                Error::from(Child),
                Error::from(Varied(404)),
                Error::from(Varied(409)),
                Error::from(NotFound),
                Error::from(BadRequest),
                Error::from(BadRequestKeyError),
                Error::from(HttpError::new(404)),
                Error::from(std::io::Error::other(Child)),
            ]
        };
        let mut hits = 0;
        for choice in (0..3_usize.pow(9)).step_by(16) {
            let scopes = scopes(choice);
            let prepared = prepare(&scopes, |_, _| true);
            for error in errors() {
                let Some(handler) = error.plain_type().and_then(|id| prepared.get(&id)) else {
                    continue;
                };
                let found = find(&scopes, &error).map(|found| *found.handler);
                assert_eq!(found, Some(*handler), "{error:?} with choice {choice}");
                hits += 1;
            }
        }
        assert!(hits > 1_000, "{hits}");
    }

    #[test]
    fn what_depends_on_more_than_the_type_is_not_prepared() {
        let prepared = prepare(&scopes(0), |_, _| true);
        for error in [
            Error::from(Varied(404)),
            Error::from(HttpError::new(404)),
            Error::from(std::io::Error::other(Child)),
            Error::of_kind(&kind::Kind::of::<Base>(), Undeclared),
            Error::from("text"),
        ] {
            let found = error.plain_type().and_then(|id| prepared.get(&id));
            assert_eq!(found, None, "{error:?}");
        }
        let of_type = |error: Error| prepared.get(&error.plain_type().unwrap()).copied();
        assert_eq!(of_type(Error::from(Undeclared)), Some(0));
        assert_eq!(of_type(Error::from(Child)), Some(2));
        assert_eq!(of_type(Error::from(NotFound)), Some(8));
    }
}
