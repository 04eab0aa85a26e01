//! Kinds: what is known about a type of error beyond its Rust type.
//!
//! A kind has a name, parents, and (for HTTP errors) a status code, a description and headers.
//! Handlers registered for a parent catch its children, nearest first.
//!
//! Most kinds are declared next to the type, by [`http_error!`](crate::http_error!) or
//! [`error_kind!`](crate::error_kind!); the linker collects the declarations, so there is no
//! list to keep.
//! A kind can also be made at run time, for errors that have no Rust type of their own: tests,
//! plug-ins and bindings to other languages need that.

use std::any::TypeId;
use std::borrow::Cow;
use std::collections::HashMap;
use std::error::Error as StdError;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::HttpError;

/// The most parents, grandparents and so on that one kind may have.
///
/// Deeper trees are a mistake, and each level costs a step in every look-up.
const ANCESTORS_MAX: usize = 64;

/// What is known about a type of error: name, parents, status code, description, headers.
///
/// Cheap to clone.
///
/// # Example
///
/// ```
/// use backstop::Kind;
///
/// let payment = Kind::new("PaymentError", &[]).unwrap();
/// let card = Kind::new("CardError", &[&payment]).unwrap().code(402);
/// assert!(card.is_a(&payment));
/// assert_eq!(card.status_code(), Some(402));
/// ```
#[derive(Clone)]
pub struct Kind(Arc<Facts>);

#[derive(Clone)]
struct Facts {
    key: Key,
    name: Cow<'static, str>,
    code: Option<u16>,
    description: Option<Cow<'static, str>>,
    headers: HeaderMap,
    /// This kind, then its ancestors, nearest first.
    line: Box<[Key]>,
    parents: Vec<Kind>,
}

/// Identifies a kind, and so what a handler is registered for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    /// A Rust type.
    Type(TypeId),
    /// A kind made at run time, by its number.
    Made(u64),
}

/// Keys are hashes or small numbers already.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        // The multiplier spreads small numbers over the upper bits, which the map looks at.
        self.0 = (self.0 ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn write_u16(&mut self, number: u16) {
        self.write_u64(u64::from(number));
    }

    fn write_isize(&mut self, number: isize) {
        self.0 ^= number.unsigned_abs() as u64;
    }
}

/// A map by something that cannot be chosen from outside to collide.
pub(crate) type KeyMap<K, V> = HashMap<K, V, BuildHasherDefault<KeyHasher>>;

impl Key {
    pub(crate) const fn of<T: 'static>() -> Self {
        Self::Type(TypeId::of::<T>())
    }

    /// The handler that takes any error.
    pub(crate) const ANY: Self = Self::of::<crate::Error>();

    /// The handler that takes any HTTP error.
    pub(crate) const HTTP: Self = Self::of::<HttpError>();
}

impl Kind {
    /// Makes a kind at run time.
    ///
    /// Code, description and headers are those of the nearest parent that has them.
    ///
    /// # Errors
    ///
    /// - The parents cannot be put in an order that respects each parent's own order.
    /// - There are more than 64 ancestors.
    pub fn new(
        name: impl Into<Cow<'static, str>>,
        parents: &[&Kind],
    ) -> Result<Self, InvalidParents> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let key = Key::Made(NEXT.fetch_add(1, Ordering::Relaxed));
        Self::with_key(key, name.into(), parents)
    }

    fn with_key(
        key: Key,
        name: Cow<'static, str>,
        parents: &[&Kind],
    ) -> Result<Self, InvalidParents> {
        let parents: Vec<Kind> = parents.iter().map(|&parent| parent.clone()).collect();
        let Some(line) = linearise(key, &parents) else {
            return Err(InvalidParents {
                kind: name.into_owned(),
            });
        };
        // Nearest first along each parent: a parent has already settled its own inheritance.
        let code = parents.iter().find_map(Kind::status_code);
        let description = parents.iter().find_map(|p| p.0.description.clone());
        let mut headers = HeaderMap::new();
        for parent in parents.iter().rev() {
            headers.extend(parent.0.headers.clone());
        }
        Ok(Self(Arc::new(Facts {
            key,
            name,
            code,
            description,
            headers,
            line,
            parents,
        })))
    }

    /// The kind of a Rust type: what was declared for it, else a kind with its name and no parents.
    pub fn of<T: StdError + 'static>() -> Self {
        declared(TypeId::of::<T>()).cloned().unwrap_or_else(|| {
            Self::with_key(Key::of::<T>(), short_name(std::any::type_name::<T>()), &[])
                .expect("a kind without parents has an order")
        })
    }

    /// The kind of an HTTP error with this code: the declared standard one, else the general one.
    pub fn of_code(code: u16) -> Self {
        REGISTRY
            .standard
            .get(&code)
            .cloned()
            .unwrap_or_else(|| Self::of::<HttpError>().code(code))
    }

    /// Sets the status code.
    #[must_use]
    pub fn code(mut self, code: u16) -> Self {
        Arc::make_mut(&mut self.0).code = Some(code);
        self
    }

    /// Sets the description: the sentence that clients may read.
    #[must_use]
    pub fn description(mut self, text: impl Into<Cow<'static, str>>) -> Self {
        Arc::make_mut(&mut self.0).description = Some(text.into());
        self
    }

    /// Adds a header to the responses of this kind.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        Arc::make_mut(&mut self.0).headers.append(name, value);
        self
    }

    /// The name: of a Rust type without its path.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The status code, if errors of this kind are HTTP errors.
    pub fn status_code(&self) -> Option<u16> {
        self.0.code
    }

    /// The description that was declared, or inherited.
    pub fn default_description(&self) -> Option<&str> {
        self.0.description.as_deref()
    }

    /// The headers that were declared, or inherited.
    pub fn headers(&self) -> &HeaderMap {
        &self.0.headers
    }

    /// Tells whether a handler for `other` may take errors of this kind.
    pub fn is_a(&self, other: &Kind) -> bool {
        self.0.line.contains(&other.0.key)
    }

    pub(crate) fn key(&self) -> Key {
        self.0.key
    }

    pub(crate) fn line(&self) -> &[Key] {
        &self.0.line
    }

    pub(crate) fn shared_description(&self) -> Option<Cow<'static, str>> {
        self.0.description.clone()
    }

    /// This kind and its ancestors, for messages to people.
    pub(crate) fn lineage(&self) -> Vec<&str> {
        self.0
            .line
            .iter()
            .filter_map(|key| self.find(*key))
            .map(Kind::name)
            .collect()
    }

    fn find(&self, key: Key) -> Option<&Kind> {
        if self.key() == key {
            return Some(self);
        }
        self.0.parents.iter().find_map(|parent| parent.find(key))
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kind")
            .field("name", &self.0.name)
            .field("code", &self.0.code)
            .field("line", &self.lineage())
            .finish_non_exhaustive()
    }
}

impl PartialEq for Kind {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Kind {}

/// The parents of a kind contradict each other, or are too many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidParents {
    kind: String,
}

impl fmt::Display for InvalidParents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = &self.kind;
        write!(
            f,
            "the parents of kind \"{kind}\" contradict each other in order, or are more than {ANCESTORS_MAX}"
        )
    }
}

impl StdError for InvalidParents {}

/// Puts a kind and its ancestors into an order that keeps every kind before its parents and
/// every list of parents in its order (C3, as Python's method resolution order:
/// <https://www.python.org/download/releases/2.3/mro/>).
fn linearise(key: Key, parents: &[Kind]) -> Option<Box<[Key]>> {
    let mut lists: Vec<Vec<Key>> = parents.iter().map(|p| p.line().to_vec()).collect();
    lists.push(parents.iter().map(Kind::key).collect());
    let mut line = vec![key];
    loop {
        lists.retain(|list| !list.is_empty());
        if lists.is_empty() {
            return Some(line.into());
        }
        let next = lists
            .iter()
            .map(|list| list[0])
            .find(|head| !lists.iter().any(|list| list[1..].contains(head)))?;
        for list in &mut lists {
            list.retain(|&other| other != next);
        }
        line.push(next);
        if line.len() > ANCESTORS_MAX {
            return None;
        }
    }
}

/// A kind that was declared for a Rust type. Written by the macros.
#[doc(hidden)]
pub struct Declared {
    pub of: fn() -> TypeId,
    pub is: fn(&(dyn StdError + 'static)) -> bool,
    pub name: &'static str,
    pub code: Option<u16>,
    /// The code of one value, for types whose values differ.
    pub code_of: Option<fn(&(dyn StdError + 'static)) -> Option<u16>>,
    pub description: Option<&'static str>,
    pub parents: &'static [fn() -> TypeId],
}

inventory::collect!(Declared);

/// Everything declared in this program, put in order once.
struct Registry {
    kinds: KeyMap<TypeId, Known>,
    /// The standard HTTP errors by code.
    standard: KeyMap<u16, Kind>,
}

static REGISTRY: LazyLock<Registry> = LazyLock::new(Registry::build);

impl Registry {
    fn build() -> Self {
        let sources: HashMap<TypeId, &'static Declared> = inventory::iter::<Declared>()
            .map(|declared| ((declared.of)(), declared))
            .collect();
        let mut kinds = KeyMap::default();
        for &id in sources.keys() {
            build_kind(id, &sources, &mut kinds, 0);
        }
        let standard = crate::http_error::STANDARD
            .iter()
            .filter_map(|of| kinds.get(&of()))
            .filter_map(|known| Some((known.code?, known.kind.clone())))
            .collect();
        Self { kinds, standard }
    }
}

fn build_kind(
    id: TypeId,
    sources: &HashMap<TypeId, &'static Declared>,
    kinds: &mut KeyMap<TypeId, Known>,
    depth: usize,
) -> Option<Kind> {
    if let Some(known) = kinds.get(&id) {
        return Some(known.kind.clone());
    }
    let declared = *sources.get(&id)?;
    // A cycle of declarations would recurse for ever; it ends here, without those parents.
    let mut parents = Vec::new();
    if depth < ANCESTORS_MAX {
        for parent in declared.parents {
            if let Some(kind) = build_kind(parent(), sources, kinds, depth + 1) {
                parents.push(kind);
            } else {
                parents.push(bare(parent(), "parent"));
            }
        }
    }
    let parents: Vec<&Kind> = parents.iter().collect();
    let name = Cow::Borrowed(declared.name);
    let mut kind = Kind::with_key(Key::Type(id), name.clone(), &parents)
        .or_else(|_| Kind::with_key(Key::Type(id), name, &parents[..1]))
        .unwrap_or_else(|_| bare(id, declared.name));
    if let Some(code) = declared.code {
        kind = kind.code(code);
    }
    if let Some(description) = declared.description {
        kind = kind.description(description);
    }
    let known = Known {
        code: kind.status_code(),
        kind: kind.clone(),
        declared,
    };
    kinds.insert(id, known);
    Some(kind)
}

fn bare(id: TypeId, name: &'static str) -> Kind {
    Kind::with_key(Key::Type(id), name.into(), &[]).expect("a kind without parents has an order")
}

/// The kind that was declared for a type.
pub(crate) fn declared(id: TypeId) -> Option<&'static Kind> {
    known(id).map(Known::kind)
}

/// The description of a standard code.
pub(crate) fn description_of(code: u16) -> Option<&'static str> {
    REGISTRY.standard.get(&code)?.default_description()
}

/// A kind that was declared, and its declaration.
pub(crate) struct Known {
    /// The kind's.
    code: Option<u16>,
    kind: Kind,
    declared: &'static Declared,
}

impl Known {
    pub(crate) fn kind(&self) -> &Kind {
        &self.kind
    }

    /// The code of an error of this kind, whose values may have codes of their own.
    pub(crate) fn code_of(&self, error: &(dyn StdError + 'static)) -> Option<u16> {
        match self.declared.code_of {
            Some(code_of) => code_of(error),
            None => self.code,
        }
    }

    /// The code of every error of this kind; `None` if its values have codes of their own.
    #[cfg(feature = "web")]
    pub(crate) fn common_code(&self) -> Option<Option<u16>> {
        self.declared.code_of.is_none().then_some(self.code)
    }
}

/// What was declared for a type.
pub(crate) fn known(id: TypeId) -> Option<&'static Known> {
    REGISTRY.kinds.get(&id)
}

/// What was declared for the type of an error that is hidden behind `dyn Error`: each declaration
/// is asked.
pub(crate) fn known_for(error: &(dyn StdError + 'static)) -> Option<&'static Known> {
    let mut kinds = REGISTRY.kinds.values();
    kinds.find(|known| (known.declared.is)(error))
}

/// Everything that was declared, by type.
#[cfg(feature = "web")]
pub(crate) fn all_known() -> impl Iterator<Item = (TypeId, &'static Known)> {
    REGISTRY.kinds.iter().map(|(id, known)| (*id, known))
}

/// A type's name without the path of its module, generics kept short as well.
pub(crate) fn short_name(path: &'static str) -> Cow<'static, str> {
    let end = path.find('<').unwrap_or(path.len());
    let start = path[..end].rfind("::").map_or(0, |at| at + 2);
    Cow::Borrowed(&path[start..end])
}

/// Declares parents (and, if wanted, a status code) for an error type of your own.
///
/// A handler for a parent then takes the type as well; the nearest parent wins.
/// With `code = function` every value has its own status code, which suits an `enum`: the enum
/// is the parent, its variants are the children.
/// The function is called once for each error, when it becomes an [`Error`](crate::Error).
///
/// # Example
///
/// ```
/// use backstop::{Kind, error_kind};
///
/// #[derive(Debug)]
/// struct PaymentError;
/// # impl std::fmt::Display for PaymentError {
/// #     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.write_str("payment") }
/// # }
/// impl std::error::Error for PaymentError {}
///
/// #[derive(Debug)]
/// enum CardError { Expired, Refused }
/// # impl std::fmt::Display for CardError {
/// #     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.write_str("card") }
/// # }
/// impl std::error::Error for CardError {}
///
/// impl CardError {
///     fn code(&self) -> u16 {
///         match self { Self::Expired => 410, Self::Refused => 402 }
///     }
/// }
///
/// error_kind!(PaymentError);
/// error_kind!(CardError: PaymentError; code = CardError::code);
///
/// assert!(Kind::of::<CardError>().is_a(&Kind::of::<PaymentError>()));
/// assert_eq!(backstop::Error::from(CardError::Refused).code(), Some(402));
/// ```
#[macro_export]
macro_rules! error_kind {
    ($type:ty $(: $($parent:ty),+)? $(; code = $code:expr)? $(; description = $description:expr)? $(;)?) => {
        $crate::__private::inventory::submit! {
            $crate::__private::Declared {
                of: ::std::any::TypeId::of::<$type>,
                is: |error| error.is::<$type>(),
                name: $crate::__private::last_segment(::std::stringify!($type)),
                code: ::std::option::Option::None,
                code_of: $crate::__private::first!(
                    $(::std::option::Option::Some(|error| {
                        error.downcast_ref::<$type>().map(|error| ::std::convert::Into::<u16>::into(($code)(error)))
                    }),)?
                    ::std::option::Option::None
                ),
                description: $crate::__private::first!(
                    $(::std::option::Option::Some($description),)?
                    ::std::option::Option::None
                ),
                parents: &[$($(::std::any::TypeId::of::<$parent>),+)?],
            }
        }
    };
}

/// The last segment of a type as written: `shop::CardError` is `CardError`.
#[doc(hidden)]
pub const fn last_segment(path: &'static str) -> &'static str {
    let bytes = path.as_bytes();
    let mut start = 0;
    let mut at = 0;
    while at < bytes.len() && bytes[at] != b'<' {
        if bytes[at] == b':' || bytes[at] == b' ' {
            start = at + 1;
        }
        at += 1;
    }
    path.split_at(start).1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(kind: &Kind) -> Vec<&str> {
        kind.lineage()
    }

    #[test]
    fn diamond_puts_the_second_parent_before_the_common_base() {
        let base = Kind::new("Base", &[]).unwrap();
        let left = Kind::new("Left", &[&base]).unwrap();
        let right = Kind::new("Right", &[&base]).unwrap();
        let both = Kind::new("Both", &[&left, &right]).unwrap();
        assert_eq!(names(&both), ["Both", "Left", "Right", "Base"]);
    }

    #[test]
    fn contradicting_parents_are_refused() {
        let base = Kind::new("Base", &[]).unwrap();
        let child = Kind::new("Child", &[&base]).unwrap();
        let refused = Kind::new("Odd", &[&base, &child]).unwrap_err();
        assert!(refused.to_string().contains("\"Odd\""));
    }

    #[test]
    fn nearest_parent_gives_the_code() {
        let kind = Kind::new("NoSuchUser", &[&Kind::of_code(404)]).unwrap();
        assert_eq!(kind.status_code(), Some(404));
        assert!(kind.is_a(&Kind::of::<HttpError>()));
    }

    #[test]
    fn names_lose_their_paths() {
        assert_eq!(short_name("a::b::C<d::E>"), "C");
        assert_eq!(last_segment("a::b::C"), "C");
        assert_eq!(last_segment("C"), "C");
    }
}
