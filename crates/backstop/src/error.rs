//! The error that views return: any error, and the place where it was made.
//!
//! `?` converts every error type into [`Error`] and keeps the value, its type's name and the line
//! of the `?`; where [`should_capture`] says so, also the stack with its variables.
//! What happens then is decided by the web module.

use std::any::TypeId;
use std::error::Error as StdError;
use std::fmt;
use std::marker::PhantomData;
use std::panic::Location;
use std::sync::Arc;

use backstop_capture::Snapshot;
use http::{HeaderMap, StatusCode};

use crate::kind::{self, Key, Kind, Known};
use crate::{HttpError, name_of};

/// `std::result::Result` with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The longest chain of sources that is followed; a chain that is longer is a loop.
pub(crate) const CHAIN_MAX: usize = 32;

/// Any error, and where it was made.
///
/// Made by `?` from every error type, from anyhow's and from text.
/// Like anyhow's it does not implement `std::error::Error` itself; [`Error::as_dyn`] gives what
/// does.
/// Cheap to clone: clones are the same error.
///
/// # Example
///
/// ```
/// fn parse(text: &str) -> backstop::Result<u16> {
///     Ok(text.parse::<u16>()?)
/// }
///
/// let error = parse("x").unwrap_err();
/// assert!(error.is::<std::num::ParseIntError>());
/// assert_eq!(error.location().file(), file!());
/// ```
#[derive(Clone)]
pub struct Error(Arc<Inner>);

struct Inner {
    value: Value,
    of: &'static Type,
    /// What was declared for the value's type. Asked for many times on the way of an error.
    known: Option<&'static Known>,
    is: Is,
    /// The code by which handlers are chosen.
    code: Option<u16>,
    location: &'static Location<'static>,
    /// Most errors have none of it.
    more: Option<Box<More>>,
}

/// What is the same for every value of the type that `?` saw.
struct Type {
    name: fn() -> &'static str,
    /// `None` where a box hides the value's own type.
    id: Option<TypeId>,
}

/// What is told of an error after it was made.
#[derive(Default)]
struct More {
    /// For errors whose kind was made at run time.
    kind: Option<Kind>,
    context: Option<Error>,
    snapshot: Option<Arc<Snapshot>>,
}

/// Which of the types that are asked for on the way of every error the value is.
///
/// To find out is cheap, but not a dozen times.
#[derive(Clone, Copy)]
struct Is {
    http: bool,
    io: bool,
    panic: bool,
}

impl Is {
    #[inline]
    fn of_type(id: TypeId) -> Self {
        Self {
            http: id == TypeId::of::<HttpError>(),
            io: id == TypeId::of::<std::io::Error>(),
            panic: id == TypeId::of::<crate::Panic>(),
        }
    }

    fn of(value: &Value) -> Self {
        Self {
            http: value.downcast_ref::<HttpError>().is_some(),
            io: value.downcast_ref::<std::io::Error>().is_some(),
            panic: value.downcast_ref::<crate::Panic>().is_some(),
        }
    }
}

enum Value {
    Boxed(Box<dyn StdError + Send + Sync>),
    /// Kept as it is: in a box it would hide its outermost type and lose its backtrace.
    #[cfg(feature = "anyhow")]
    Anyhow(anyhow::Error),
    #[cfg(feature = "eyre")]
    Eyre(eyre::Report),
}

impl<E> From<E> for Error
where
    E: Into<Box<dyn StdError + Send + Sync>> + 'static,
{
    #[track_caller]
    fn from(error: E) -> Self {
        let location = Location::caller();
        let type_id = TypeId::of::<E>();
        let value = Value::from(error);
        if let Value::Boxed(boxed) = &value
            && let Some(Carrier(error)) = boxed.downcast_ref::<Carrier>()
        {
            return error.clone();
        }
        let mut error = match hides_its_type(type_id) {
            false => Self::of_type(value, &Seen::<E>::PLAIN, Is::of_type(type_id), location),
            true => Self::of_value(value, &Seen::<E>::HIDDEN, location),
        };
        if should_capture(&error) {
            let snapshot = Arc::new(crate::capture::take(location));
            error.edit(|_, more| more.snapshot = Some(snapshot));
        }
        error
    }
}

/// A type that `?` sees.
struct Seen<E>(PhantomData<E>);

impl<E: 'static> Seen<E> {
    const PLAIN: Type = Type {
        name: std::any::type_name::<E>,
        id: Some(TypeId::of::<E>()),
    };
    const HIDDEN: Type = Type {
        name: std::any::type_name::<E>,
        id: None,
    };
}

/// Tells whether an error is worth a stack: somebody looks at stacks, and it may go unhandled.
///
/// Errors with a code were made on purpose and mostly have a handler or a default page; a panic
/// has the stack that its hook took.
#[inline]
fn should_capture(error: &Error) -> bool {
    let inner = &error.0;
    inner.code.is_none() && !inner.is.panic && !inner.is.http && crate::capture::is_wanted()
}

/// Tells whether a value of this type shows another type once it is boxed.
#[inline]
fn hides_its_type(id: TypeId) -> bool {
    #[cfg(feature = "anyhow")]
    if id == TypeId::of::<anyhow::Error>() {
        return true;
    }
    #[cfg(feature = "eyre")]
    if id == TypeId::of::<eyre::Report>() {
        return true;
    }
    id == TypeId::of::<Box<dyn StdError + Send + Sync>>()
        || id == TypeId::of::<String>()
        || id == TypeId::of::<&'static str>()
        || id == TypeId::of::<std::borrow::Cow<'static, str>>()
}

impl<E: Into<Box<dyn StdError + Send + Sync>> + 'static> From<E> for Value {
    fn from(error: E) -> Self {
        #[cfg(feature = "anyhow")]
        let error = match take_as::<E, anyhow::Error>(error) {
            Ok(error) => return Self::Anyhow(error),
            Err(error) => error,
        };
        #[cfg(feature = "eyre")]
        let error = match take_as::<E, eyre::Report>(error) {
            Ok(error) => return Self::Eyre(error),
            Err(error) => error,
        };
        Self::Boxed(error.into())
    }
}

impl Value {
    fn as_dyn(&self) -> &(dyn StdError + Send + Sync + 'static) {
        match self {
            Self::Boxed(error) => &**error,
            #[cfg(feature = "anyhow")]
            Self::Anyhow(error) => &**error,
            #[cfg(feature = "eyre")]
            Self::Eyre(error) => &**error,
        }
    }

    fn downcast_ref<T: StdError + Send + Sync + 'static>(&self) -> Option<&T> {
        match self {
            #[cfg(feature = "anyhow")]
            Self::Anyhow(error) => error.downcast_ref::<T>(),
            #[cfg(feature = "eyre")]
            Self::Eyre(error) => error.downcast_ref::<T>(),
            Self::Boxed(error) => error.downcast_ref::<T>(),
        }
    }
}

/// Gives back the value as what it is, if that is a `T`.
#[cfg(any(feature = "anyhow", feature = "eyre"))]
fn take_as<E: 'static, T: 'static>(error: E) -> Result<T, E> {
    let mut slot = Some(error);
    let any: &mut dyn std::any::Any = &mut slot;
    match any.downcast_mut::<Option<T>>().and_then(Option::take) {
        Some(error) => Ok(error),
        None => Err(slot.expect("nothing took it")),
    }
}

impl Error {
    /// Makes an error whose type is certain.
    fn of_type(
        value: Value,
        of: &'static Type,
        is: Is,
        location: &'static Location<'static>,
    ) -> Self {
        let known = of.id.and_then(kind::known);
        Self::new(value, of, is, known, location)
    }

    /// Makes an error of a box, which hides its type.
    fn of_value(value: Value, of: &'static Type, location: &'static Location<'static>) -> Self {
        let (is, known) = (Is::of(&value), kind::known_for(value.as_dyn()));
        Self::new(value, of, is, known, location)
    }

    #[inline(always)]
    fn new(
        value: Value,
        of: &'static Type,
        is: Is,
        known: Option<&'static Known>,
        location: &'static Location<'static>,
    ) -> Self {
        let code = match is.http {
            false => known.and_then(|known| known.code_of(value.as_dyn())),
            true => code_of_http(&value),
        };
        Self(Arc::new(Inner {
            value,
            of,
            known,
            is,
            code,
            location,
            more: None,
        }))
    }

    /// Makes an error of a kind that was made at run time.
    ///
    /// # Example
    ///
    /// ```
    /// use backstop::{Error, Kind};
    ///
    /// let card = Kind::new("CardError", &[]).unwrap();
    /// let error = Error::of_kind(&card, std::io::Error::other("refused"));
    /// assert_eq!(error.kind_name(), "CardError");
    /// ```
    #[track_caller]
    pub fn of_kind(
        kind: &Kind,
        error: impl Into<Box<dyn StdError + Send + Sync>> + 'static,
    ) -> Self {
        let mut error = Self::from(error);
        error.edit(|code, more| {
            *code = kind.status_code();
            more.kind = Some(kind.clone());
        });
        error
    }

    /// Notes which error was being dealt with when this one was made.
    pub(crate) fn in_context_of(mut self, first: Error) -> Self {
        self.edit(|_, more| {
            more.context.get_or_insert(first);
        });
        self
    }

    /// Changes an error that nobody else holds; a shared one stays as it is.
    fn edit(&mut self, change: impl FnOnce(&mut Option<u16>, &mut More)) {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            change(&mut inner.code, inner.more.get_or_insert_default());
        }
    }

    fn made_kind(&self) -> Option<&Kind> {
        self.0.more.as_ref()?.kind.as_ref()
    }

    /// The error as the standard trait.
    pub fn as_dyn(&self) -> &(dyn StdError + Send + Sync + 'static) {
        self.0.value.as_dyn()
    }

    /// The error as a box, for functions that return those; converted back it is the same error.
    pub fn into_boxed(self) -> Box<dyn StdError + Send + Sync> {
        Box::new(Carrier(self))
    }

    /// Tells whether the error itself is a `T`.
    pub fn is<T: StdError + Send + Sync + 'static>(&self) -> bool {
        self.downcast_ref::<T>().is_some()
    }

    /// The error itself, if it is a `T`.
    pub fn downcast_ref<T: StdError + Send + Sync + 'static>(&self) -> Option<&T> {
        self.0.value.downcast_ref()
    }

    /// The error itself, if it is an [`HttpError`].
    pub(crate) fn http(&self) -> Option<&HttpError> {
        self.0.is.http.then(|| self.downcast_ref()).flatten()
    }

    /// The error itself, if it is of the standard library's kind for input and output.
    pub(crate) fn io(&self) -> Option<&std::io::Error> {
        self.0.is.io.then(|| self.downcast_ref()).flatten()
    }

    /// The error itself, if it is a panic.
    pub(crate) fn panic(&self) -> Option<&crate::Panic> {
        self.0.is.panic.then(|| self.downcast_ref()).flatten()
    }

    /// The first `T` in the chain: the error itself or one that it was caused by.
    pub fn find<T: StdError + Send + Sync + 'static>(&self) -> Option<&T> {
        self.downcast_ref::<T>()
            .or_else(|| self.chain().find_map(|error| error.downcast_ref::<T>()))
    }

    /// The error and what it was caused by, outermost first.
    ///
    /// Also finds what `io::Error::other` hides from `source()`.
    /// An error behind `#[error(transparent)]` cannot be found: its wrapper shows the inner one's
    /// text and skips it in the chain.
    pub fn chain(&self) -> impl Iterator<Item = &(dyn StdError + 'static)> {
        let first: &(dyn StdError + 'static) = self.as_dyn();
        std::iter::successors(Some(first), |error| source_of(*error)).take(CHAIN_MAX)
    }

    /// The full name of the type that `?` or `from` saw.
    pub fn type_name(&self) -> &'static str {
        (self.0.of.name)()
    }

    /// The name of the error's kind: its type without the path.
    ///
    /// Of the many types that are called `Error` the path is kept, else nobody knows whose.
    pub fn kind_name(&self) -> &str {
        if let Some(kind) = self.kind() {
            return kind.name();
        }
        match kind::short_name(self.type_name()) {
            std::borrow::Cow::Borrowed(name) if name != "Error" => name,
            _ => self.type_name(),
        }
    }

    /// Where the error was made: the line of the `?`, or of the panic.
    pub(crate) fn place(&self) -> String {
        match self.panic().and_then(crate::Panic::place) {
            Some((file, line)) => format!("{file}:{line}"),
            None => self.location().to_string(),
        }
    }

    /// The kind that was declared for the error's type, or made at run time.
    pub fn kind(&self) -> Option<&Kind> {
        if let Some(kind) = self.made_kind() {
            return Some(kind);
        }
        if let Some(error) = self.http() {
            return Some(error.kind());
        }
        self.0.known.map(Known::kind)
    }

    /// The line of the `?` (or of the `from` or `into`) that made this error.
    pub fn location(&self) -> &'static Location<'static> {
        self.0.location
    }

    /// The stack where this error was made, if it was taken.
    pub(crate) fn snapshot(&self) -> Option<&Arc<Snapshot>> {
        self.0.more.as_ref()?.snapshot.as_ref()
    }

    /// The error that was being dealt with when this one was made: a handler or hook failed.
    pub fn context(&self) -> Option<&Error> {
        self.0.more.as_ref()?.context.as_ref()
    }

    /// The error that nobody handled, when this is the 500 made of it.
    pub fn original(&self) -> Option<&Error> {
        self.http()?.original()
    }

    /// The status code, if this is an HTTP error.
    pub fn code(&self) -> Option<u16> {
        if let Some(error) = self.http() {
            return error.status_code();
        }
        self.code_of_kind()
    }

    /// The code by which handlers are chosen: the kind's, whatever the error itself says.
    pub(crate) fn code_of_kind(&self) -> Option<u16> {
        self.0.code
    }

    /// The status to answer with: the error's code, or 500.
    pub fn status(&self) -> StatusCode {
        self.code()
            .and_then(|code| StatusCode::from_u16(code).ok())
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The name of the status.
    pub fn name(&self) -> &'static str {
        name_of(self.status().as_u16())
    }

    /// What clients may read of this error: nothing unless it is an HTTP error.
    pub fn description(&self) -> &str {
        if let Some(error) = self.http() {
            return error.public_description();
        }
        let Some(code) = self.code() else {
            return "";
        };
        self.kind()
            .and_then(Kind::default_description)
            .or_else(|| kind::description_of(code))
            .unwrap_or_default()
    }

    /// The headers that belong to the response.
    pub fn headers(&self) -> HeaderMap {
        if let Some(error) = self.http() {
            return error.headers();
        }
        self.kind()
            .map(|kind| kind.headers().clone())
            .unwrap_or_default()
    }

    /// The error as an HTTP error, if it has a code: what a default page shows.
    pub(crate) fn as_http(&self) -> Option<HttpError> {
        if let Some(error) = self.http() {
            return Some(error.describe());
        }
        let code = self.code()?;
        let kind = match self.kind() {
            Some(kind) => kind.clone(),
            None => Kind::of_code(code),
        };
        let description = kind.shared_description();
        let error = HttpError::of(kind).code(code).detail(self.to_string());
        Some(match description {
            Some(_) => error,
            // A type with a code and no description of its own has the code's.
            None => match Kind::of_code(code).shared_description() {
                Some(description) => error.description(description),
                None => error,
            },
        })
    }

    /// The type of an error about which nothing is known that its type does not say.
    #[cfg(feature = "web")]
    pub(crate) fn plain_type(&self) -> Option<TypeId> {
        match self.made_kind() {
            None => self.0.of.id,
            Some(_) => None,
        }
    }

    /// The keys of the error's own kind, nearest first; `None` where only its type is known.
    pub(crate) fn type_key(&self) -> Option<Key> {
        self.0.of.id.map(Key::Type)
    }
}

/// The code of an HTTP error's kind.
#[inline(never)]
fn code_of_http(value: &Value) -> Option<u16> {
    value.downcast_ref::<HttpError>()?.kind().status_code()
}

/// An error that travels as a standard one.
struct Carrier(Error);

impl fmt::Display for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl StdError for Carrier {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.as_dyn().source()
    }
}

/// What an error was caused by.
pub(crate) fn source_of<'a>(
    error: &'a (dyn StdError + 'static),
) -> Option<&'a (dyn StdError + 'static)> {
    // `io::Error` skips the error inside it and names that one's source.
    if let Some(inner) = error
        .downcast_ref::<std::io::Error>()
        .and_then(std::io::Error::get_ref)
    {
        return Some(inner);
    }
    error.source()
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let error = self.as_dyn();
        write!(f, "{error}")?;
        if f.alternate() {
            for cause in self.chain().skip(1) {
                write!(f, ": {cause}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.as_dyn())?;
        for cause in self.chain().skip(1) {
            write!(f, "\n  caused by: {cause}")?;
        }
        write!(f, "\n  made at: {}", self.location())?;
        match self.context() {
            Some(first) => write!(f, "\n  while handling: {first:#}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Inner;

    impl fmt::Display for Inner {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("inner")
        }
    }

    impl StdError for Inner {}

    #[test]
    fn chain_finds_what_io_error_other_hides() {
        let error = Error::from(std::io::Error::other(Inner));
        assert!(error.find::<Inner>().is_some());
        let texts: Vec<String> = error.chain().map(ToString::to_string).collect();
        assert_eq!(texts, ["inner", "inner"]);
    }

    #[test]
    fn boxes_show_the_type_inside() {
        let boxed: Box<dyn StdError + Send + Sync> = Box::new(crate::errors::NotFound);
        assert_eq!(Error::from(boxed).code(), Some(404));
    }

    #[test]
    fn text_is_an_error() {
        let error = Error::from("no disk");
        assert_eq!(error.to_string(), "no disk");
        assert_eq!(error.code(), None);
        assert_eq!(error.description(), "");
    }

    #[cfg(feature = "anyhow")]
    #[test]
    fn anyhow_shows_its_outermost_type_and_its_contexts() {
        let plain = Error::from(anyhow::Error::new(Inner));
        assert!(plain.is::<Inner>());
        let with_context = Error::from(anyhow::Error::new(crate::errors::NotFound).context("cart"));
        assert_eq!(with_context.as_dyn().to_string(), "cart");
        assert!(with_context.find::<crate::errors::NotFound>().is_some());
        assert_eq!(Error::from(anyhow::anyhow!("text")).chain().count(), 1);
    }

    #[cfg(feature = "eyre")]
    #[test]
    fn eyre_shows_its_outermost_type_and_its_contexts() {
        let plain = Error::from(eyre::Report::new(Inner));
        assert!(plain.is::<Inner>());
        let with_context = Error::from(eyre::Report::new(Inner).wrap_err("cart"));
        assert_eq!(with_context.as_dyn().to_string(), "cart");
        assert!(with_context.find::<Inner>().is_some());
    }
}
