//! Python pickles, read and written without Python.
//!
//! Swift keeps rings' builders and the rows of pending files as pickles. A pickle is a program for a small stack machine,
//! and in Python it can call anything. Here it builds plain values and nothing else: the few functions that Python's own
//! pickler names, to have arrays, objects, or bytes where the protocol has none, are known by name and done here; an object
//! is the name of its class with its attributes beside it. Everything else is an error.
//!
//! Values can be shared, and can change after they were: the same device stands in two lists of a builder, and a list is
//! remembered before anything is in it. So they lie in one row, [`Pickle::things`], and name each other by their places.
//! Nothing follows these names by itself; a nest of any depth, or a list that holds itself, is read and dropped like the
//! rest. Lists of numbers, which are nearly all of a builder, take four bytes a number.
//!
//! What reading takes is a small multiple of the input: no length in it reserves anything, [`Limits`] says how many values
//! may be built, and what is copied is counted.

mod machine;
mod opcode;
mod writer;

use std::borrow::Cow;
use std::fmt;
use std::rc::Rc;

use self::machine::Machine;
pub use self::writer::{Place, Writer};

/// What a pickle may build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most values it may build or fetch from its memory, the most it may put there, and the most marks it may set.
    /// Numbers that became part of a list of numbers do not count any more.
    pub values: usize,
    /// What these may be.
    pub language: Language,
}

/// The part of pickle's language that is understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// `None`, whole numbers, text, and tuples of these. Bytes are text here, and an error if they are not UTF-8.
    Records,
    /// All that is plain: also fractions, bytes, lists, dicts, arrays of unsigned numbers up to 32 bits, and objects of
    /// these classes, given as module and name.
    Plain(&'static [(&'static str, &'static str)]),
}

/// A pickle that was read. Text and bytes are those of the input where that is possible.
#[derive(Debug)]
pub struct Pickle<'a> {
    things: Vec<Thing<'a>>,
    root: Slot,
}

/// A value of a pickle.
#[derive(Debug, Clone, Copy)]
pub struct Value<'p> {
    things: &'p [Thing<'p>],
    slot: Slot,
}

impl<'a> Pickle<'a> {
    /// Runs the pickle up to its end; what follows that is not looked at.
    ///
    /// # Errors
    /// It does not hold together, or wants something else than the limits allow.
    pub fn read(input: &'a [u8], limits: Limits) -> Result<Pickle<'a>, PickleError> {
        Machine::new(input, limits).run()
    }

    /// What the pickle is of.
    pub fn root(&self) -> Value<'_> {
        Value { things: &self.things, slot: self.root }
    }
}

impl<'p> Value<'p> {
    /// Whether it is `None`.
    pub fn is_none(self) -> bool {
        matches!(self.slot, Slot::None)
    }

    /// `True` or `False`.
    pub fn boolean(self) -> Option<bool> {
        match self.slot {
            Slot::Boolean(boolean) => Some(boolean),
            _ => None,
        }
    }

    /// A whole number. As in Python `True` is 1.
    pub fn integer(self) -> Option<i64> {
        match self.slot {
            Slot::Boolean(boolean) => Some(boolean.into()),
            Slot::Integer(integer) => Some(integer),
            _ => None,
        }
    }

    /// Any number.
    pub fn float(self) -> Option<f64> {
        match self.slot {
            Slot::Float(float) => Some(float),
            _ => self.integer().map(|integer| integer as f64),
        }
    }

    /// Text, or what Python 2 took for it.
    pub fn text(self) -> Option<&'p str> {
        match self.thing()? {
            Thing::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The numbers of an array with its type code, which says how wide they are.
    pub fn array(self) -> Option<(u8, &'p [u32])> {
        match self.thing()? {
            Thing::Array { code, numbers } => Some((*code, numbers)),
            _ => None,
        }
    }

    /// The numbers of an array, or of a list of nothing but whole numbers up to 32 bits.
    pub fn numbers(self) -> Option<&'p [u32]> {
        match self.thing()? {
            Thing::Array { numbers, .. } | Thing::Numbers(numbers) => Some(numbers),
            Thing::List(items) if items.is_empty() => Some(&[]),
            _ => None,
        }
    }

    /// The values of a list or tuple.
    pub fn items(self) -> Option<impl ExactSizeIterator<Item = Value<'p>>> {
        let (slots, numbers): (&[Slot], &[u32]) = match self.thing()? {
            Thing::Tuple(items) => (items, &[]),
            Thing::List(items) => (items, &[]),
            Thing::Numbers(numbers) => (&[], numbers),
            _ => return None,
        };
        let things = self.things;
        Some((0..slots.len() + numbers.len()).map(move |at| {
            let slot = match slots.get(at) {
                Some(slot) => *slot,
                None => Slot::Integer(numbers[at - slots.len()].into()),
            };
            Value { things, slot }
        }))
    }

    /// The keys and values of a dict in their order. A key that comes again replaces the one before.
    pub fn entries(self) -> Option<impl ExactSizeIterator<Item = (Value<'p>, Value<'p>)>> {
        let Thing::Dict(entries) = self.thing()? else { return None };
        let value = move |slot| Value { things: self.things, slot };
        Some(entries.iter().map(move |&(key, held)| (value(key), value(held))))
    }

    /// What a dict has under a key.
    pub fn entry(self, key: &str) -> Option<Value<'p>> {
        let Thing::Dict(entries) = self.thing()? else { return None };
        let value = move |slot| Value { things: self.things, slot };
        entries
            .iter()
            .rev()
            .find(|&&(known, _)| value(known).text() == Some(key))
            .map(|&(_, held)| value(held))
    }

    /// The dict of an object's attributes, with the place of its class in [`Language::Plain`].
    pub fn object(self) -> Option<(usize, Value<'p>)> {
        match self.thing()? {
            Thing::Object { class, attributes } => {
                Some((*class, Value { things: self.things, slot: (*attributes)? }))
            }
            _ => None,
        }
    }

    fn thing(self) -> Option<&'p Thing<'p>> {
        match self.slot {
            Slot::Thing(place) => self.things.get(place as usize),
            _ => None,
        }
    }
}

/// What it is, for the eyes of an operator.
impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.slot {
            Slot::None => f.write_str("None"),
            Slot::Boolean(boolean) => f.write_str(if boolean { "True" } else { "False" }),
            Slot::Integer(integer) => integer.fmt(f),
            Slot::Float(float) => float.fmt(f),
            Slot::Function(_) => f.write_str("a function"),
            Slot::Thing(_) => match self.thing() {
                Some(Thing::Text(text)) if text.chars().count() <= 64 => write!(f, "{text:?}"),
                Some(Thing::Text(_)) => f.write_str("a long text"),
                Some(Thing::Bytes(_)) => f.write_str("bytes"),
                Some(Thing::Tuple(items)) => write!(f, "a tuple of {}", items.len()),
                Some(Thing::List(items)) => write!(f, "a list of {}", items.len()),
                Some(Thing::Numbers(numbers)) => write!(f, "a list of {} numbers", numbers.len()),
                Some(Thing::Dict(_)) => f.write_str("a dict"),
                Some(Thing::Array { numbers, .. }) => write!(f, "an array of {}", numbers.len()),
                Some(Thing::Object { .. }) | None => f.write_str("an object"),
            },
        }
    }
}

/// Why bytes are no pickle that we read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PickleError {
    /// It ends in the middle.
    CutShort,
    /// It wants something that is not allowed, at this byte of it.
    Forbidden {
        /// What it wants to do.
        opcode: u8,
        /// Where it says so.
        at: usize,
    },
    /// It does not hold together at this byte.
    Malformed {
        /// What it was about to do.
        opcode: u8,
        /// Where it says so.
        at: usize,
    },
}

impl fmt::Display for PickleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PickleError::CutShort => write!(f, "the pickle is cut short"),
            PickleError::Forbidden { opcode, at } => {
                write!(f, "the pickle's opcode {opcode:#04x} at byte {at} wants what is not allowed")
            }
            PickleError::Malformed { opcode, at } => {
                write!(f, "the pickle's opcode {opcode:#04x} at byte {at} does not fit what is there")
            }
        }
    }
}

impl std::error::Error for PickleError {}

/// A value in hand: itself, or where it lies.
#[derive(Debug, Clone, Copy)]
enum Slot {
    None,
    Boolean(bool),
    Integer(i64),
    Float(f64),
    Function(Function),
    Thing(u32),
}

/// What may be named to be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Function {
    /// `_codecs.encode`, which Python calls to have bytes where the protocol has none.
    Encode,
    /// The type `bytes`, called with nothing for bytes of length 0.
    Bytes,
    /// The type `bytearray`, called with nothing, bytes, or what makes bytes. They stay bytes: nothing changes them here.
    ByteArray,
    /// The type `array.array`, called with a type code and a list.
    Array,
    /// `array._array_reconstructor`, called with the numbers as bytes.
    ArrayOfBytes,
    /// `copyreg._reconstructor`, called with a class for an object of it.
    Reconstructor,
    /// The type `object`, on which classes are based.
    Object,
    /// A class of [`Language::Plain`].
    Class(usize),
}

/// A value that can be shared.
#[derive(Debug)]
enum Thing<'a> {
    Text(Cow<'a, str>),
    Bytes(Cow<'a, [u8]>),
    Tuple(Box<[Slot]>),
    List(Vec<Slot>),
    /// A list of nothing but whole numbers, and not empty. An array made of it holds the same until one of them changes.
    Numbers(Rc<Vec<u32>>),
    Dict(Vec<(Slot, Slot)>),
    Array {
        code: u8,
        numbers: Rc<Vec<u32>>,
    },
    Object {
        class: usize,
        attributes: Option<Slot>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: Limits =
        Limits { values: 1000, language: Language::Plain(&[("a.module", "Thing"), ("b", "Other")]) };

    /// The value as one would write it in Python.
    fn written(value: Value<'_>) -> String {
        let list = |items: Vec<String>| items.join(", ");
        if let Some(text) = value.text() {
            return format!("{text:?}");
        } else if let Some((code, numbers)) = value.array() {
            return format!("{}{numbers:?}", char::from(code));
        } else if let Some((class, attributes)) = value.object() {
            return format!("object {class} {}", written(attributes));
        } else if let Some(Thing::Bytes(bytes)) = value.thing() {
            return format!("b\"{}\"", bytes.escape_ascii());
        } else if let Some(items) = value.items() {
            let items = list(items.map(written).collect());
            return if matches!(value.thing(), Some(Thing::Tuple(_))) {
                format!("({items})")
            } else {
                format!("[{items}]")
            };
        } else if let Some(entries) = value.entries() {
            return format!(
                "{{{}}}",
                list(entries.map(|(key, held)| format!("{}: {}", written(key), written(held))).collect())
            );
        }
        value.to_string()
    }

    fn read(pickle: &[u8]) -> String {
        match Pickle::read(pickle, LIMITS) {
            Ok(pickle) => written(pickle.root()),
            Err(error) => panic!("{}: {error}", pickle.escape_ascii()),
        }
    }

    fn refused(pickle: &[u8]) -> PickleError {
        match Pickle::read(pickle, LIMITS) {
            Ok(read) => panic!("{}: {}", pickle.escape_ascii(), written(read.root())),
            Err(error) => error,
        }
    }

    fn is_forbidden(pickle: &[u8]) -> bool {
        matches!(refused(pickle), PickleError::Forbidden { .. })
    }

    fn is_malformed(pickle: &[u8]) -> bool {
        matches!(refused(pickle), PickleError::Malformed { .. })
    }

    #[test]
    fn plain_values_of_every_protocol_are_read() {
        let pickles: [(&[u8], &str); 16] = [
            (b"(lp0\nI1\naF2.5\naI01\naI00\naNa.", "[1, 2.5, True, False, None]"),
            (b"(dp0\nVkey\np1\n(I1\nI2\ntp2\nsVother\np3\n(lp4\ns.", "{\"key\": (1, 2), \"other\": []}"),
            (b"(I1\nI2\nl.", "[1, 2]"),
            (b"(Vk\nI2\nd.", "{\"k\": 2}"),
            (b"\x80\x02]q\0(K\x01G@\x04\0\0\0\0\0\0\x88\x89Ne.", "[1, 2.5, True, False, None]"),
            (b"\x80\x02}q\0(U\x01aK\x01U\x01b)u.", "{\"a\": 1, \"b\": ()}"),
            (b"\x80\x02}q\0U\x01aK\x01s.", "{\"a\": 1}"),
            (b"\x80\x03C\x02a\xff.", "b\"a\\xff\""),
            (b"\x80\x02U\x02a\xff.", "b\"a\\xff\""),
            (b"c__builtin__\nbytearray\n(c_codecs\nencode\n(X\x03\0\0\0a\xc3\xbfX\x06\0\0\0latin1tRtR.", "b\"a\\xff\""),
            (b"\x80\x05\x96\x02\0\0\0\0\0\0\0a\xff.", "b\"a\\xff\""),
            // array.array('H', [1, 2, 65535]) as Python writes it in protocols 0, 2, 3 and 4.
            (b"carray\narray\np0\n(VH\np1\n(lp2\nI1\naI2\naI65535\natp3\nRp4\n.", "H[1, 2, 65535]"),
            (b"\x80\x02carray\narray\nq\0X\x01\0\0\0Hq\x01]q\x02(K\x01K\x02M\xff\xffe\x86q\x03Rq\x04.", "H[1, 2, 65535]"),
            (
                b"\x80\x03carray\n_array_reconstructor\nq\0(carray\narray\nq\x01X\x01\0\0\0Hq\x02K\x02C\x06\x01\0\x02\0\xff\xffq\x03tq\x04Rq\x05.",
                "H[1, 2, 65535]",
            ),
            (
                b"\x80\x04\x8c\x05array\x94\x8c\x14_array_reconstructor\x94\x93\x94(h\0\x8c\x05array\x93\x8c\x01I\x94K\x07C\x04\x01\0\0\x02t\x94R.",
                "I[16777218]",
            ),
            (b"carray\narray\n(U\x01B]tR.", "B[]"),
        ];
        for (pickle, expected) in pickles {
            assert_eq!(read(pickle), expected, "{}", pickle.escape_ascii());
        }
    }

    #[test]
    fn an_object_is_its_class_and_its_attributes() {
        let expected = "object 0 {\"a\": 1}";
        assert_eq!(read(b"\x80\x02ca.module\nThing\n)\x81q\0}U\x01aK\x01sb."), expected);
        assert_eq!(
            read(b"ccopy_reg\n_reconstructor\n(ca.module\nThing\nc__builtin__\nobject\nNtR(dVa\nI1\nsb."),
            expected
        );
        assert_eq!(read(b"(ia.module\nThing\n(dVa\nI1\nsb."), expected);
        assert_eq!(read(b"(ca.module\nThing\no}(U\x01aK\x01ub."), expected);
        assert_eq!(read(b"cb\nOther\n)\x81}b."), "object 1 {}");
        assert!(is_forbidden(b"ca.module\nOther\n)\x81."));
        assert!(is_forbidden(b"ca.module\nThing\n)R."), "no class is called");
        assert!(is_forbidden(b"ca.module\nThing\n(K\x01t\x81."));
        assert!(is_forbidden(b"(ca.module\nThing\nK\x01o."));
        assert!(is_malformed(b"ca.module\nThing\n)\x81Nb."));
        assert!(is_malformed(b"ca.module\nThing\n)\x81}b}b."), "attributes are given once");
        assert!(is_malformed(b"]}b."));
    }

    #[test]
    fn nothing_else_can_be_called_or_named() {
        for pickle in [
            &b"cos\nsystem\n(S'true'\ntR."[..],
            b"(S'true'\nios\nsystem\n.",
            b"\x80\x04\x8c\x02os\x8c\x06system\x93.",
            b"cbuiltins\neval\n.",
            b"cbuiltins\nobject\n)R.",
            b"carray\narray\n(U\x01d]tR.",
            b"carray\narray\n(U\x01B]NtR.",
            b"carray\n_array_reconstructor\n(carray\narray\nU\x01HK\x0eC\x02abtR.",
            b"c_codecs\nencode\n(Vn\nVutf-16\ntR.",
            b"K\x01Q.",
            b"\x82\x01.",
            b"N0N.",
            b"N2.",
        ] {
            assert!(is_forbidden(pickle), "{}", pickle.escape_ascii());
        }
        assert!(is_malformed(b"carray\narray\n(U\x01B](M\0\x01etR."), "256 is no byte");
        assert!(is_malformed(b"carray\narray\n(U\x01H](K\x01NetR."));
        assert!(is_malformed(b"(K\x01d."), "a key without value");
        assert!(is_malformed(b"]K\x01K\x02s."));
        assert!(is_malformed(b"K\x01a."));
        assert!(is_malformed(b"](a."), "what lies below a mark is out of reach");
        assert!(is_malformed(b"e."));
    }

    #[test]
    fn what_is_shared_changes_everywhere() {
        assert_eq!(read(b"\x80\x02]q\0h\0\x86h\0(K\x05K\x06e\x86."), "(([5, 6], [5, 6]), [5, 6])");
        assert_eq!(
            read(b"\x80\x02}q\0h\0\x86h\0U\x01aK\x05s\x86."),
            "(({\"a\": 5}, {\"a\": 5}), {\"a\": 5})"
        );
        // An array took its numbers from the list; what the list gets later is not its own.
        let pickle = b"\x80\x02]q\0(K\x01K\x02ecarray\narray\nU\x01Hh\0\x86Rh\0K\x03a\x87.";
        assert_eq!(read(pickle), "([1, 2, 3], H[1, 2], [1, 2, 3])");
    }

    #[test]
    fn a_list_of_numbers_takes_in_anything() {
        assert_eq!(read(b"](K\x01M\x00\x01eNaJ\xff\xff\xff\xffaK\x02a."), "[1, 256, None, -1, 2]");
        assert_eq!(read(b"](J\xff\xff\xff\xffK\x01e."), "[-1, 1]");
        assert_eq!(read(b"](\x88K\x01e."), "[True, 1]");
        assert_eq!(read(b"](\x8a\x05\xff\xff\xff\xff\0e."), "[4294967295]");
        let packed = Pickle::read(b"](K\x01\x8a\x05\xff\xff\xff\xff\0e.", LIMITS).expect("a list");
        assert_eq!(packed.root().numbers(), Some(&[1, u32::MAX][..]));
        let wider = Pickle::read(b"](K\x01\x8a\x05\0\0\0\0\x01e.", LIMITS).expect("a list");
        assert_eq!(wider.root().numbers(), None);
        assert_eq!(Pickle::read(b"].", LIMITS).expect("a list").root().numbers(), Some(&[][..]));
    }

    #[test]
    fn the_last_of_equal_keys_counts() {
        let pickle = Pickle::read(b"}(U\x01aK\x01U\x01bK\x02U\x01aK\x03u.", LIMITS).expect("a dict");
        assert_eq!(pickle.root().entry("a").and_then(Value::integer), Some(3));
        assert!(pickle.root().entry("c").is_none());
    }

    #[test]
    fn a_deep_nest_and_a_list_in_itself_are_read_and_dropped() {
        let limits = Limits { values: 1 << 20, ..LIMITS };
        let tuples = [&b")"[..], &b"\x85".repeat(500_000), b"."].concat();
        assert!(Pickle::read(&tuples, limits).is_ok());
        let lists = [&b"]".repeat(500_000)[..], &b"a".repeat(499_999), b"."].concat();
        assert!(Pickle::read(&lists, limits).is_ok());
        let own = Pickle::read(b"]q\0h\0a.", limits).expect("a list in itself");
        assert_eq!(own.root().items().map(|items| items.len()), Some(1));
    }

    #[test]
    fn no_more_is_built_than_allowed() {
        let with = |piece: &[u8], times: usize| [b"](".as_slice(), &piece.repeat(times), b"e."].concat();
        // The list counts as one.
        for piece in [&b"N"[..], b"]", b")", b"U\0"] {
            assert!(Pickle::read(&with(piece, LIMITS.values - 1), LIMITS).is_ok());
            assert!(is_forbidden(&with(piece, LIMITS.values)));
        }
        let batch = with(b"K\x07", LIMITS.values - 1);
        assert!(Pickle::read(&batch, LIMITS).is_ok());
        assert!(is_forbidden(&with(b"K\x07", LIMITS.values)), "too many in hand");
        // Numbers that are in a list make room for others, until something else makes values of them.
        let list = [b"]".as_slice(), &[&b"("[..], &b"K\x07".repeat(500), b"e"].concat().repeat(100)].concat();
        let packed = [&list[..], b"."].concat();
        assert_eq!(
            Pickle::read(&packed, LIMITS).expect("a list").root().numbers().map(<[u32]>::len),
            Some(50_000)
        );
        assert!(is_forbidden(&[&list[..], b"Na."].concat()));
        let marks = [&b"(".repeat(LIMITS.values)[..], b"N."].concat();
        assert!(Pickle::read(&marks, LIMITS).is_ok());
        assert!(is_forbidden(&[b"(".as_slice(), &marks].concat()));
    }

    #[test]
    fn what_is_there_once_cannot_be_copied_often() {
        let bytes = [b"\x80\x03B\0\x10\0\0".as_slice(), &[7; 4096], b"q\0"].concat();
        let array = b"carray\n_array_reconstructor\n(carray\narray\nU\x01BK\0h\0tR";
        assert!(Pickle::read(&[&bytes[..], array, b"."].concat(), LIMITS).is_ok());
        assert!(is_forbidden(&[&bytes[..], array, array, b"."].concat()));
        // Each array shares the list's numbers, and each number more would part them.
        let list =
            [b"]q\0".as_slice(), &[&b"("[..], &b"K\x07".repeat(500), b"e"].concat().repeat(8)].concat();
        let again = b"carray\narray\nU\x01Hh\0\x86Rh\0K\x01a";
        assert!(Pickle::read(&[&list[..], &again.repeat(2), b"."].concat(), LIMITS).is_ok());
        assert!(is_forbidden(&[&list[..], &again.repeat(4), b"."].concat()));
        let text = [b"X\0\x10\0\0".as_slice(), &[b'a'; 4096], b"q\0"].concat();
        let encode = b"c_codecs\nencode\nh\0U\x06latin1\x86R";
        assert!(Pickle::read(&[&text[..], encode, b"."].concat(), LIMITS).is_ok());
        assert!(is_forbidden(&[&text[..], encode, encode, b"."].concat()));
    }

    #[test]
    fn what_is_written_is_read() {
        let mut writer = Writer::default();
        writer.dict(|fields| {
            fields.word("plain");
            fields.tuple(5, |tuple| {
                tuple.none();
                tuple.boolean(true);
                tuple.float(-2.5);
                tuple.integer(-1);
                tuple.integer(1 << 40);
            });
            fields.word("empty");
            fields.tuple(3, |tuple| {
                tuple.tuple(0, |_| ());
                tuple.list(0..0, |list, number: i64| list.integer(number));
                tuple.dict(|_| ());
            });
            fields.word("many");
            fields.list(0..300, |list, number: i64| _ = list.text(&number.to_string()));
            fields.word("shared");
            let place = fields.list(0..3, |list, number| list.integer(number));
            fields.word("plain again");
            fields.recall(place);
            fields.word("arrays");
            fields.tuple(2, |tuple| {
                tuple.array('H', 0..2001);
                tuple.array('I', [u32::MAX, 65536, 0]);
            });
            fields.word("word");
            fields.word("plain");
        });
        let bytes = writer.finish();
        let pickle = Pickle::read(&bytes, Limits { values: 2000, ..LIMITS }).expect("to read it");
        let entry = |key| pickle.root().entry(key).expect(key);
        assert_eq!(written(entry("plain")), "(None, True, -2.5, -1, 1099511627776)");
        assert_eq!(written(entry("empty")), "((), [], {})");
        assert_eq!(entry("many").items().expect("a list").nth(299).and_then(Value::text), Some("299"));
        assert_eq!(entry("shared").slot_place(), entry("plain again").slot_place());
        let arrays: Vec<Value> = entry("arrays").items().expect("a tuple").collect();
        assert_eq!(arrays[0].array(), Some((b'H', &(0..2001).collect::<Vec<u32>>()[..])));
        assert_eq!(arrays[1].array(), Some((b'I', &[u32::MAX, 65536, 0][..])));
        assert_eq!(entry("word").text(), Some("plain"));
    }

    impl Value<'_> {
        fn slot_place(self) -> Option<u32> {
            match self.slot {
                Slot::Thing(place) => Some(place),
                _ => None,
            }
        }
    }

    #[test]
    fn a_pickle_that_ends_early_is_none() {
        let mut writer = Writer::default();
        writer.dict(|fields| {
            fields.word("key");
            fields.array('B', 0..20);
        });
        let bytes = writer.finish();
        for length in 0..bytes.len() {
            assert_eq!(refused(&bytes[..length]), PickleError::CutShort, "{length}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_value_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Pickle::read(&bytes, LIMITS);
        }

        #[test]
        fn any_program_is_a_value_or_an_error(
            picks in proptest::collection::vec((any::<proptest::sample::Index>(), 0u8..4), 0..100),
        ) {
            let words: [&[u8]; 38] = [
                b"(", b"N", b"\x88", b"K\x01", b"M\x00\x02", b"J\xff\xff\xff\xff", b"\x8a\x05\0\0\0\0\x01", b"G@\0\0\0\0\0\0\0",
                b"U\x01H", b"X\x01\0\0\0B", b"C\x02ab", b")", b"\x85", b"\x86", b"\x87", b"t", b"]", b"l", b"a", b"e", b"}", b"d",
                b"s", b"u", b"q", b"h", b"\x94", b"carray\narray\n", b"carray\n_array_reconstructor\n",
                b"c_codecs\nencode\n", b"ccopyreg\n_reconstructor\n", b"ca.module\nThing\n", b"cbuiltins\nobject\n", b"R",
                b"\x81", b"o", b"ib\nOther\n", b"b",
            ];
            let mut program = Vec::new();
            for (pick, place) in picks {
                let word = words[pick.index(words.len())];
                program.extend(word);
                if matches!(word, b"q" | b"h") {
                    program.push(place);
                }
            }
            program.push(b'.');
            if let Ok(pickle) = Pickle::read(&program, LIMITS) {
                let _ = pickle.root().to_string();
            }
        }
    }
}
