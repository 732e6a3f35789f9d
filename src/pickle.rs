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

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;
use std::str;

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

/// The machine that a pickle is the program of: each step takes one opcode and its operand from the input.
struct Machine<'a> {
    input: &'a [u8],
    limits: Limits,
    at: usize,
    stack: Vec<Slot>,
    marks: Vec<usize>,
    memo: HashMap<u32, Slot>,
    things: Vec<Thing<'a>>,
    values: usize,
    copied: usize,
}

/// What one opcode came to, short of the place it stands at.
enum Fault {
    CutShort,
    Forbidden,
    Malformed,
}

impl<'a> Machine<'a> {
    fn new(input: &'a [u8], limits: Limits) -> Machine<'a> {
        Machine {
            input,
            limits,
            at: 0,
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            things: Vec::new(),
            values: 0,
            copied: 0,
        }
    }

    fn run(mut self) -> Result<Pickle<'a>, PickleError> {
        loop {
            let at = self.at;
            let opcode = *self.input.get(at).ok_or(PickleError::CutShort)?;
            self.at += 1;
            if opcode == opcode::STOP {
                let root = self.pop().map_err(|_| PickleError::Malformed { opcode, at })?;
                return Ok(Pickle { things: self.things, root });
            }
            self.step(opcode).map_err(|fault| match fault {
                Fault::CutShort => PickleError::CutShort,
                Fault::Forbidden => PickleError::Forbidden { opcode, at },
                Fault::Malformed => PickleError::Malformed { opcode, at },
            })?;
        }
    }

    fn step(&mut self, opcode: u8) -> Result<(), Fault> {
        match opcode {
            opcode::PROTO => match self.take(1)?[0] {
                0..=5 => Ok(()),
                _ => Err(Fault::Forbidden),
            },
            opcode::FRAME => match self.length(8)? {
                length if length > self.input.len() - self.at => Err(Fault::CutShort),
                _ => Ok(()),
            },
            opcode::MARK if self.marks.len() < self.limits.values => {
                self.marks.push(self.stack.len());
                Ok(())
            }

            opcode::NONE => self.push(Slot::None),
            opcode::NEWTRUE => self.push(Slot::Boolean(true)),
            opcode::NEWFALSE => self.push(Slot::Boolean(false)),
            opcode::BININT1 => self.push_integer(1, false),
            opcode::BININT2 => self.push_integer(2, false),
            opcode::BININT => self.push_integer(4, true),
            opcode::LONG1 => {
                let length = self.length(1)?;
                self.push_integer(length, true)
            }
            opcode::LONG4 => {
                let length = self.length(4)?;
                self.push_integer(length, true)
            }
            opcode::INT | opcode::LONG => match (opcode, self.text_line()?) {
                (opcode::INT, "00") => self.push(Slot::Boolean(false)),
                (opcode::INT, "01") => self.push(Slot::Boolean(true)),
                (opcode::INT, digits) => self.push(Slot::Integer(parse(digits)?)),
                (_, digits) => self.push(Slot::Integer(parse(digits.trim_end_matches('L'))?)),
            },

            opcode::SHORT_BINSTRING => self.push_counted(1, Machine::push_string),
            opcode::BINSTRING => self.push_counted(4, Machine::push_string),
            opcode::SHORT_BINUNICODE => self.push_counted(1, Machine::push_text),
            opcode::BINUNICODE => self.push_counted(4, Machine::push_text),
            opcode::BINUNICODE8 => self.push_counted(8, Machine::push_text),
            opcode::SHORT_BINBYTES => self.push_counted(1, Machine::push_bytes),
            opcode::BINBYTES => self.push_counted(4, Machine::push_bytes),
            opcode::BINBYTES8 => self.push_counted(8, Machine::push_bytes),
            opcode::UNICODE => {
                let text = unescape_unicode(self.line()?).ok_or(Fault::Malformed)?;
                self.push_thing(Thing::Text(text.into()))
            }
            opcode::STRING => {
                let bytes = unescape_string(self.line()?).ok_or(Fault::Malformed)?;
                self.push_string(bytes.into())
            }

            opcode::EMPTY_TUPLE => self.push_tuple(self.stack.len()),
            opcode::TUPLE1 | opcode::TUPLE2 | opcode::TUPLE3 => {
                let length = usize::from(opcode - opcode::TUPLE1) + 1;
                let start = self.stack.len().checked_sub(length).ok_or(Fault::Malformed)?;
                self.push_tuple(start)
            }
            opcode::TUPLE => {
                let start = self.mark()?;
                self.push_tuple(start)
            }

            opcode::BINPUT => self.length(1).and_then(|place| self.put(place)),
            opcode::LONG_BINPUT => self.length(4).and_then(|place| self.put(place)),
            opcode::PUT => self.text_line().and_then(parse).and_then(|place| self.put(place)),
            opcode::MEMOIZE => self.put(self.memo.len()),
            opcode::BINGET => self.length(1).and_then(|place| self.get(place)),
            opcode::LONG_BINGET => self.length(4).and_then(|place| self.get(place)),
            opcode::GET => self.text_line().and_then(parse).and_then(|place| self.get(place)),

            opcode::GLOBAL => {
                let (module, name) = (self.line()?, self.line()?);
                let function = self.function(module, name)?;
                self.push(Slot::Function(function))
            }
            opcode::STACK_GLOBAL => {
                let (name, module) = (self.pop()?, self.pop()?);
                let function = match (self.text(module), self.text(name)) {
                    (Some(module), Some(name)) => self.function(module.as_bytes(), name.as_bytes())?,
                    _ => return Err(Fault::Malformed),
                };
                self.push(Slot::Function(function))
            }
            opcode::REDUCE => {
                let (arguments, function) = (self.pop()?, self.pop()?);
                let arguments = match self.thing(arguments) {
                    Some(Thing::Tuple(arguments)) if arguments.len() <= 4 => arguments.to_vec(),
                    Some(Thing::Tuple(_)) => return Err(Fault::Forbidden),
                    _ => return Err(Fault::Malformed),
                };
                self.call(function, &arguments)
            }
            _ => match self.limits.language {
                Language::Records => Err(Fault::Forbidden),
                Language::Plain(_) => self.step_beyond_records(opcode),
            },
        }
    }

    /// The opcodes of what no record holds.
    fn step_beyond_records(&mut self, opcode: u8) -> Result<(), Fault> {
        match opcode {
            opcode::BINFLOAT => {
                let bytes = self.take(8)?.try_into().expect("8 bytes");
                self.push(Slot::Float(f64::from_be_bytes(bytes)))
            }
            opcode::FLOAT => {
                let float = self.text_line().and_then(parse)?;
                self.push(Slot::Float(float))
            }

            opcode::EMPTY_LIST => self.push_thing(Thing::List(Vec::new())),
            opcode::LIST => {
                let start = self.mark()?;
                self.push_thing(Thing::List(Vec::new()))?;
                let list = self.stack.pop().expect("the list");
                self.append(list, start)?;
                self.stack.push(list);
                Ok(())
            }
            opcode::APPEND => {
                let start = self.stack.len().checked_sub(1).ok_or(Fault::Malformed)?;
                let list = self.below(start)?;
                self.append(list, start)
            }
            opcode::APPENDS => {
                let start = self.mark()?;
                let list = self.below(start)?;
                self.append(list, start)
            }

            opcode::EMPTY_DICT => self.push_thing(Thing::Dict(Vec::new())),
            opcode::DICT => {
                let start = self.mark()?;
                self.push_thing(Thing::Dict(Vec::new()))?;
                let dict = self.stack.pop().expect("the dict");
                self.set(dict, start)?;
                self.stack.push(dict);
                Ok(())
            }
            opcode::SETITEM => {
                let start = self.stack.len().checked_sub(2).ok_or(Fault::Malformed)?;
                let dict = self.below(start)?;
                self.set(dict, start)
            }
            opcode::SETITEMS => {
                let start = self.mark()?;
                let dict = self.below(start)?;
                self.set(dict, start)
            }

            opcode::NEWOBJ => match (self.pop()?, self.pop()?) {
                (nothing, Slot::Function(Function::Class(class))) if self.is_empty_tuple(nothing) => {
                    self.push_thing(Thing::Object { class, attributes: None })
                }
                _ => Err(Fault::Forbidden),
            },
            opcode::OBJ => {
                let start = self.mark()?;
                let made = self.stack.split_off(start);
                let [Slot::Function(Function::Class(class))] = made[..] else { return Err(Fault::Forbidden) };
                self.push_thing(Thing::Object { class, attributes: None })
            }
            opcode::INST => {
                let (module, name) = (self.line()?, self.line()?);
                let start = self.mark()?;
                match self.function(module, name)? {
                    Function::Class(class) if start == self.stack.len() => {
                        self.push_thing(Thing::Object { class, attributes: None })
                    }
                    _ => Err(Fault::Forbidden),
                }
            }
            opcode::BUILD => {
                let state = self.pop()?;
                let object = self.below(self.stack.len())?;
                let is_dict = matches!(self.thing(state), Some(Thing::Dict(_)));
                match self.thing_mut(object) {
                    Some(Thing::Object { attributes: attributes @ None, .. }) if is_dict => {
                        *attributes = Some(state);
                        Ok(())
                    }
                    _ => Err(Fault::Malformed),
                }
            }
            _ => Err(Fault::Forbidden),
        }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Fault> {
        let taken = self.input[self.at..].get(..length).ok_or(Fault::CutShort)?;
        self.at += length;
        Ok(taken)
    }

    fn line(&mut self) -> Result<&'a [u8], Fault> {
        let rest = &self.input[self.at..];
        let length = rest.iter().position(|byte| *byte == b'\n').ok_or(Fault::CutShort)?;
        self.at += length + 1;
        Ok(&rest[..length])
    }

    fn text_line(&mut self) -> Result<&'a str, Fault> {
        str::from_utf8(self.line()?).map_err(|_| Fault::Malformed)
    }

    /// A little-endian length or place of up to 8 bytes.
    fn length(&mut self, width: usize) -> Result<usize, Fault> {
        let mut bytes = [0; 8];
        bytes[..width].copy_from_slice(self.take(width)?);
        usize::try_from(u64::from_le_bytes(bytes)).map_err(|_| Fault::Malformed)
    }

    /// What lies below this belongs to something that is not finished.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn mark(&mut self) -> Result<usize, Fault> {
        let start = self.marks.pop().ok_or(Fault::Malformed)?;
        if start <= self.stack.len() { Ok(start) } else { Err(Fault::Malformed) }
    }

    fn pop(&mut self) -> Result<Slot, Fault> {
        let value = if self.stack.len() > self.floor() { self.stack.pop() } else { None };
        value.ok_or(Fault::Malformed)
    }

    /// The value just below this place of the stack.
    fn below(&self, start: usize) -> Result<Slot, Fault> {
        let slot = if start > self.floor() { self.stack.get(start - 1) } else { None };
        slot.copied().ok_or(Fault::Malformed)
    }

    fn push(&mut self, slot: Slot) -> Result<(), Fault> {
        self.count(1)?;
        self.stack.push(slot);
        Ok(())
    }

    fn count(&mut self, values: usize) -> Result<(), Fault> {
        if values > self.limits.values - self.values {
            return Err(Fault::Forbidden);
        }
        self.values += values;
        Ok(())
    }

    /// Counts what is copied though the input has it once. Honest pickles do not come near the limit.
    fn copy(&mut self, length: usize) -> Result<(), Fault> {
        self.copied = self.copied.saturating_add(length);
        if self.copied <= self.input.len() { Ok(()) } else { Err(Fault::Forbidden) }
    }

    fn thing(&self, slot: Slot) -> Option<&Thing<'a>> {
        match slot {
            Slot::Thing(place) => self.things.get(place as usize),
            _ => None,
        }
    }

    fn thing_mut(&mut self, slot: Slot) -> Option<&mut Thing<'a>> {
        match slot {
            Slot::Thing(place) => self.things.get_mut(place as usize),
            _ => None,
        }
    }

    fn text(&self, slot: Slot) -> Option<&str> {
        match self.thing(slot)? {
            Thing::Text(text) => Some(text),
            _ => None,
        }
    }

    fn is_empty_tuple(&self, slot: Slot) -> bool {
        matches!(self.thing(slot), Some(Thing::Tuple(items)) if items.is_empty())
    }

    fn push_thing(&mut self, thing: Thing<'a>) -> Result<(), Fault> {
        let place = u32::try_from(self.things.len()).map_err(|_| Fault::Forbidden)?;
        self.push(Slot::Thing(place))?;
        self.things.push(thing);
        Ok(())
    }

    fn push_integer(&mut self, width: usize, signed: bool) -> Result<(), Fault> {
        let bytes = self.take(width)?;
        let negative = signed && bytes.last().is_some_and(|high| *high >= 0x80);
        let mut wide = [if negative { 0xff } else { 0 }; 8];
        wide.get_mut(..width).ok_or(Fault::Malformed)?.copy_from_slice(bytes);
        self.push(Slot::Integer(i64::from_le_bytes(wide)))
    }

    fn push_counted(
        &mut self,
        width: usize,
        push: impl FnOnce(&mut Machine<'a>, Cow<'a, [u8]>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let length = self.length(width)?;
        let bytes = self.take(length)?;
        push(self, bytes.into())
    }

    fn push_text(&mut self, bytes: Cow<'a, [u8]>) -> Result<(), Fault> {
        self.push_thing(Thing::Text(as_text(bytes).map_err(|_| Fault::Malformed)?))
    }

    /// A string of Python 2, which was text or bytes as one wanted.
    fn push_string(&mut self, bytes: Cow<'a, [u8]>) -> Result<(), Fault> {
        match as_text(bytes) {
            Ok(text) => self.push_thing(Thing::Text(text)),
            Err(bytes) => self.push_bytes(bytes),
        }
    }

    fn push_bytes(&mut self, bytes: Cow<'a, [u8]>) -> Result<(), Fault> {
        match self.limits.language {
            Language::Records => self.push_text(bytes),
            Language::Plain(_) => self.push_thing(Thing::Bytes(bytes)),
        }
    }

    fn push_tuple(&mut self, start: usize) -> Result<(), Fault> {
        if start < self.floor() {
            return Err(Fault::Malformed);
        }
        let items = self.stack.drain(start..).collect();
        self.push_thing(Thing::Tuple(items))
    }

    /// Moves what lies above a place of the stack to the end of a list.
    fn append(&mut self, list: Slot, start: usize) -> Result<(), Fault> {
        let Slot::Thing(place) = list else { return Err(Fault::Malformed) };
        let place = place as usize;
        let small = |slot: &Slot| match slot {
            Slot::Integer(integer) => u32::try_from(*integer).ok(),
            _ => None,
        };
        let are_numbers = self.stack[start..].iter().all(|slot| small(slot).is_some());
        match &self.things[place] {
            Thing::List(items) if items.is_empty() && are_numbers => {
                self.things[place] = Thing::Numbers(Rc::default());
            }
            Thing::Numbers(numbers) if are_numbers => {
                let is_shared = Rc::strong_count(numbers) > 1;
                self.copy(if is_shared { numbers.len() } else { 0 })?;
            }
            // Something else comes in among the numbers.
            Thing::Numbers(numbers) => {
                let numbers = Rc::clone(numbers);
                self.count(numbers.len())?;
                let items = numbers.iter().map(|&number| Slot::Integer(number.into()));
                self.things[place] = Thing::List(items.collect());
            }
            _ => {}
        }
        match &mut self.things[place] {
            Thing::Numbers(numbers) => {
                self.values -= self.stack.len() - start;
                Rc::make_mut(numbers).extend(self.stack.drain(start..).filter_map(|slot| small(&slot)));
            }
            Thing::List(items) => items.extend(self.stack.drain(start..)),
            _ => return Err(Fault::Malformed),
        }
        Ok(())
    }

    /// Moves what lies above a place of the stack into a dict, keys and values in turn.
    fn set(&mut self, dict: Slot, start: usize) -> Result<(), Fault> {
        let Slot::Thing(place) = dict else { return Err(Fault::Malformed) };
        match &mut self.things[place as usize] {
            Thing::Dict(entries) if (self.stack.len() - start) % 2 == 0 => {
                entries.extend(self.stack[start..].chunks_exact(2).map(|entry| (entry[0], entry[1])));
                self.stack.truncate(start);
                Ok(())
            }
            _ => Err(Fault::Malformed),
        }
    }

    fn function(&self, module: &[u8], name: &[u8]) -> Result<Function, Fault> {
        let classes = match (module, name, self.limits.language) {
            (b"_codecs", b"encode", _) => return Ok(Function::Encode),
            (b"builtins" | b"__builtin__", b"bytes", _) => return Ok(Function::Bytes),
            (_, _, Language::Records) => return Err(Fault::Forbidden),
            (b"array", b"array", _) => return Ok(Function::Array),
            (b"array", b"_array_reconstructor", _) => return Ok(Function::ArrayOfBytes),
            (b"copyreg" | b"copy_reg", b"_reconstructor", _) => return Ok(Function::Reconstructor),
            (b"builtins" | b"__builtin__", b"object", _) => return Ok(Function::Object),
            (_, _, Language::Plain(classes)) => classes,
        };
        let known = |class: &(&str, &str)| (class.0.as_bytes(), class.1.as_bytes()) == (module, name);
        classes.iter().position(known).map(Function::Class).ok_or(Fault::Forbidden)
    }

    /// Does what Python's function would.
    fn call(&mut self, function: Slot, arguments: &[Slot]) -> Result<(), Fault> {
        let Slot::Function(function) = function else { return Err(Fault::Forbidden) };
        match (function, arguments) {
            (Function::Encode, &[text, codec]) => match (self.text(text), self.text(codec)) {
                (Some(text), Some("latin1" | "latin-1")) => {
                    let bytes: Result<Vec<u8>, _> = text.chars().map(u8::try_from).collect();
                    let bytes = bytes.map_err(|_| Fault::Malformed)?;
                    self.copy(bytes.len())?;
                    self.push_bytes(bytes.into())
                }
                _ => Err(Fault::Forbidden),
            },
            (Function::Bytes, []) => self.push_bytes(b"".into()),
            (Function::Array, &[code, list]) => {
                let code = self.type_code(code)?;
                let numbers = match self.thing(list) {
                    Some(Thing::Numbers(numbers)) => Rc::clone(numbers),
                    Some(Thing::List(items)) if items.is_empty() => Rc::default(),
                    _ => return Err(Fault::Malformed),
                };
                self.push_array(code, numbers)
            }
            (
                Function::ArrayOfBytes,
                &[Slot::Function(Function::Array), code, Slot::Integer(format), bytes],
            ) => {
                let code = self.type_code(code)?;
                let Some(Thing::Bytes(bytes)) = self.thing(bytes) else { return Err(Fault::Malformed) };
                let bytes = bytes.clone();
                self.copy(bytes.len())?;
                let numbers = numbers(&bytes, format).ok_or(Fault::Forbidden)?;
                self.push_array(code, numbers.into())
            }
            (
                Function::Reconstructor,
                &[Slot::Function(Function::Class(class)), Slot::Function(Function::Object), Slot::None],
            ) => self.push_thing(Thing::Object { class, attributes: None }),
            _ => Err(Fault::Forbidden),
        }
    }

    fn push_array(&mut self, code: u8, numbers: Rc<Vec<u32>>) -> Result<(), Fault> {
        let greatest = match code {
            b'B' => u8::MAX.into(),
            b'H' => u16::MAX.into(),
            _ => u32::MAX,
        };
        match numbers.iter().all(|&number| number <= greatest) {
            true => self.push_thing(Thing::Array { code, numbers }),
            false => Err(Fault::Malformed),
        }
    }

    /// The type code of an array whose numbers we can hold.
    fn type_code(&self, slot: Slot) -> Result<u8, Fault> {
        match self.text(slot).map(str::as_bytes) {
            Some([code @ (b'B' | b'H' | b'I' | b'L')]) => Ok(*code),
            Some(_) => Err(Fault::Forbidden),
            None => Err(Fault::Malformed),
        }
    }

    fn put(&mut self, place: usize) -> Result<(), Fault> {
        let place = u32::try_from(place).map_err(|_| Fault::Malformed)?;
        let slot = self.stack.last().copied().ok_or(Fault::Malformed)?;
        if self.memo.len() == self.limits.values && !self.memo.contains_key(&place) {
            return Err(Fault::Forbidden);
        }
        self.memo.insert(place, slot);
        Ok(())
    }

    fn get(&mut self, place: usize) -> Result<(), Fault> {
        let slot = u32::try_from(place).ok().and_then(|place| self.memo.get(&place).copied());
        self.push(slot.ok_or(Fault::Malformed)?)
    }
}

fn parse<T: str::FromStr>(digits: &str) -> Result<T, Fault> {
    digits.parse().map_err(|_| Fault::Malformed)
}

/// The bytes as text, or back as they are.
fn as_text(bytes: Cow<'_, [u8]>) -> Result<Cow<'_, str>, Cow<'_, [u8]>> {
    match bytes {
        Cow::Borrowed(bytes) => str::from_utf8(bytes).map(Cow::Borrowed).map_err(|_| Cow::Borrowed(bytes)),
        Cow::Owned(bytes) => {
            String::from_utf8(bytes).map(Cow::Owned).map_err(|error| Cow::Owned(error.into_bytes()))
        }
    }
}

/// The numbers of an array that was pickled as bytes, by Python's number for how they are laid out: so many bytes each,
/// the low or the high one first (`_array_reconstructor`).
fn numbers(bytes: &[u8], format: i64) -> Option<Vec<u32>> {
    let (width, is_big_endian) = match format {
        0 => (1, false),
        2 | 3 => (2, format == 3),
        6 | 7 => (4, format == 7),
        _ => return None,
    };
    if bytes.len() % width != 0 {
        return None;
    }
    let join = |number: u32, byte: &u8| number << 8 | u32::from(*byte);
    let number = |bytes: &[u8]| match is_big_endian {
        true => bytes.iter().fold(0, join),
        false => bytes.iter().rev().fold(0, join),
    };
    Some(bytes.chunks_exact(width).map(number).collect())
}

/// Python's `raw-unicode-escape`: Latin-1, and `\u` or `\U` with 4 or 8 hex digits.
fn unescape_unicode(line: &[u8]) -> Option<String> {
    let mut text = String::new();
    let mut rest = line;
    while let [byte, tail @ ..] = rest {
        let digits = match (byte, tail.first()) {
            (b'\\', Some(b'u')) => 4,
            (b'\\', Some(b'U')) => 8,
            (b'\\', Some(next)) => {
                text.extend(['\\', char::from(*next)]);
                rest = &tail[1..];
                continue;
            }
            _ => {
                text.push(char::from(*byte));
                rest = tail;
                continue;
            }
        };
        text.push(char::from_u32(hex(tail.get(1..=digits)?)?)?);
        rest = &tail[digits + 1..];
    }
    Some(text)
}

/// A quoted Python 2 string: the bytes between its quotes, escapes undone.
fn unescape_string(line: &[u8]) -> Option<Vec<u8>> {
    let [open @ (b'\'' | b'"'), inner @ .., close] = line else { return None };
    if open != close {
        return None;
    }
    let mut bytes = Vec::new();
    let mut rest = inner;
    while let [byte, tail @ ..] = rest {
        rest = tail;
        if *byte != b'\\' {
            bytes.push(*byte);
            continue;
        }
        let (escape, tail) = tail.split_first()?;
        rest = tail;
        match escape {
            b'\\' | b'\'' | b'"' => bytes.push(*escape),
            b'n' => bytes.push(b'\n'),
            b'r' => bytes.push(b'\r'),
            b't' => bytes.push(b'\t'),
            b'x' => {
                bytes.push(hex(tail.get(..2)?)? as u8);
                rest = &tail[2..];
            }
            // Python's repr writes no other.
            _ => return None,
        }
    }
    Some(bytes)
}

/// The number of up to 8 hex digits.
fn hex(digits: &[u8]) -> Option<u32> {
    let all_hex = digits.iter().all(u8::is_ascii_hexdigit);
    let digits = str::from_utf8(digits).ok().filter(|_| all_hex)?;
    u32::from_str_radix(digits, 16).ok()
}

/// A pickle in the making: protocol 2, as Python writes it.
///
/// Values follow each other; what belongs together is written by a function that is handed the writer.
#[derive(Debug)]
pub struct Writer {
    out: Vec<u8>,
    remembered: u32,
    words: HashMap<Cow<'static, str>, Place>,
}

/// Where a value is remembered, to be written again as the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place(u32);

impl Default for Writer {
    fn default() -> Writer {
        Writer { out: vec![opcode::PROTO, 2], remembered: 0, words: HashMap::new() }
    }
}

impl Writer {
    /// `None`.
    pub fn none(&mut self) {
        self.out.push(opcode::NONE);
    }

    /// `True` or `False`.
    pub fn boolean(&mut self, boolean: bool) {
        self.out.push(if boolean { opcode::NEWTRUE } else { opcode::NEWFALSE });
    }

    /// A whole number, as short as it can be written.
    pub fn integer(&mut self, integer: i64) {
        let bytes = integer.to_le_bytes();
        let (opcode, width) = match integer {
            0..=0xff => (opcode::BININT1, 1),
            0x100..=0xffff => (opcode::BININT2, 2),
            _ if i32::try_from(integer).is_ok() => (opcode::BININT, 4),
            _ => {
                let bits = 65 - (integer ^ (integer >> 63)).leading_zeros() as usize;
                let width = bits.div_ceil(8);
                self.out.extend([opcode::LONG1, width as u8]);
                return self.out.extend(&bytes[..width]);
            }
        };
        self.out.push(opcode);
        self.out.extend(&bytes[..width]);
    }

    /// A number that is a fraction, or may be.
    pub fn float(&mut self, float: f64) {
        self.out.push(opcode::BINFLOAT);
        self.out.extend(float.to_be_bytes());
    }

    /// Text of less than 4 GiB.
    pub fn text(&mut self, text: &str) -> Place {
        let length = u32::try_from(text.len()).expect("a text is far below 4 GiB");
        self.out.push(opcode::BINUNICODE);
        self.out.extend(length.to_le_bytes());
        self.out.extend(text.as_bytes());
        self.remember()
    }

    /// Text that is written out the first time only.
    pub fn word(&mut self, word: impl Into<Cow<'static, str>>) {
        let word = word.into();
        match self.words.get(&word) {
            Some(&place) => self.recall(place),
            None => {
                let place = self.text(&word);
                self.words.insert(word, place);
            }
        }
    }

    /// A tuple of so many values.
    pub fn tuple(&mut self, length: usize, write: impl FnOnce(&mut Writer)) -> Place {
        if length > 3 {
            self.out.push(opcode::MARK);
        }
        write(self);
        self.out.push(match length {
            0 => opcode::EMPTY_TUPLE,
            1 => opcode::TUPLE1,
            2 => opcode::TUPLE2,
            3 => opcode::TUPLE3,
            _ => opcode::TUPLE,
        });
        self.remember()
    }

    /// A list.
    pub fn list<T>(
        &mut self,
        items: impl IntoIterator<Item = T>,
        mut write: impl FnMut(&mut Writer, T),
    ) -> Place {
        self.out.push(opcode::EMPTY_LIST);
        let place = self.remember();
        let mut open = 0;
        for item in items {
            if open == 0 {
                self.out.push(opcode::MARK);
            }
            write(self, item);
            open += 1;
            if open == BATCH {
                self.out.push(opcode::APPENDS);
                open = 0;
            }
        }
        if open > 0 {
            self.out.push(opcode::APPENDS);
        }
        place
    }

    /// A dict: keys and values in turn.
    pub fn dict(&mut self, write: impl FnOnce(&mut Writer)) -> Place {
        self.out.push(opcode::EMPTY_DICT);
        let place = self.remember();
        self.out.push(opcode::MARK);
        write(self);
        self.out.push(opcode::SETITEMS);
        place
    }

    /// An array of numbers that its type code can hold.
    pub fn array(&mut self, code: char, numbers: impl IntoIterator<Item = u32>) {
        match self.words.get(ARRAY) {
            Some(&place) => self.recall(place),
            None => {
                self.out.push(opcode::GLOBAL);
                self.out.extend(ARRAY.as_bytes());
                let place = self.remember();
                self.words.insert(ARRAY.into(), place);
            }
        }
        self.tuple(2, |arguments| {
            arguments.word(code.to_string());
            arguments.list(numbers, |list, number| list.integer(number.into()));
        });
        self.out.push(opcode::REDUCE);
        self.remember();
    }

    /// Something that was written before: the same, not an equal one.
    pub fn recall(&mut self, place: Place) {
        match u8::try_from(place.0) {
            Ok(short) => self.out.extend([opcode::BINGET, short]),
            Err(_) => {
                self.out.push(opcode::LONG_BINGET);
                self.out.extend(place.0.to_le_bytes());
            }
        }
    }

    /// The pickle.
    pub fn finish(mut self) -> Vec<u8> {
        self.out.push(opcode::STOP);
        self.out
    }

    fn remember(&mut self) -> Place {
        let place = Place(self.remembered);
        match u8::try_from(place.0) {
            Ok(short) => self.out.extend([opcode::BINPUT, short]),
            Err(_) => {
                self.out.push(opcode::LONG_BINPUT);
                self.out.extend(place.0.to_le_bytes());
            }
        }
        self.remembered += 1;
        place
    }
}

/// Items of a list that are handed over at once, as many as Python's.
const BATCH: usize = 1000;

/// How a pickle names the type of arrays. No word has lines.
const ARRAY: &str = "array\narray\n";

/// The part of pickle's language that plain values are written in.
mod opcode {
    pub const MARK: u8 = b'(';
    pub const STOP: u8 = b'.';
    pub const PROTO: u8 = 0x80;
    pub const FRAME: u8 = 0x95;

    pub const NONE: u8 = b'N';
    pub const NEWTRUE: u8 = 0x88;
    pub const NEWFALSE: u8 = 0x89;
    pub const INT: u8 = b'I';
    pub const BININT: u8 = b'J';
    pub const BININT1: u8 = b'K';
    pub const BININT2: u8 = b'M';
    pub const LONG: u8 = b'L';
    pub const LONG1: u8 = 0x8a;
    pub const LONG4: u8 = 0x8b;
    pub const FLOAT: u8 = b'F';
    pub const BINFLOAT: u8 = b'G';

    pub const STRING: u8 = b'S';
    pub const BINSTRING: u8 = b'T';
    pub const SHORT_BINSTRING: u8 = b'U';
    pub const UNICODE: u8 = b'V';
    pub const BINUNICODE: u8 = b'X';
    pub const SHORT_BINUNICODE: u8 = 0x8c;
    pub const BINUNICODE8: u8 = 0x8d;
    pub const BINBYTES: u8 = b'B';
    pub const SHORT_BINBYTES: u8 = b'C';
    pub const BINBYTES8: u8 = 0x8e;

    pub const EMPTY_TUPLE: u8 = b')';
    pub const TUPLE: u8 = b't';
    pub const TUPLE1: u8 = 0x85;
    pub const TUPLE2: u8 = 0x86;
    pub const TUPLE3: u8 = 0x87;

    pub const EMPTY_LIST: u8 = b']';
    pub const LIST: u8 = b'l';
    pub const APPEND: u8 = b'a';
    pub const APPENDS: u8 = b'e';
    pub const EMPTY_DICT: u8 = b'}';
    pub const DICT: u8 = b'd';
    pub const SETITEM: u8 = b's';
    pub const SETITEMS: u8 = b'u';

    pub const PUT: u8 = b'p';
    pub const BINPUT: u8 = b'q';
    pub const LONG_BINPUT: u8 = b'r';
    pub const MEMOIZE: u8 = 0x94;
    pub const GET: u8 = b'g';
    pub const BINGET: u8 = b'h';
    pub const LONG_BINGET: u8 = b'j';

    pub const GLOBAL: u8 = b'c';
    pub const STACK_GLOBAL: u8 = 0x93;
    pub const REDUCE: u8 = b'R';
    pub const OBJ: u8 = b'o';
    pub const INST: u8 = b'i';
    pub const NEWOBJ: u8 = 0x81;
    pub const BUILD: u8 = b'b';
}
