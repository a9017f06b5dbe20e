//! The part of Python's pickle protocol that PyTorch writes dictionaries of tensors with.
//!
//! A pickle is a program for a stack machine. Here it makes values and runs nothing: a call is noted as what it was
//! given. A value that holds others is a place in one table, so that to ask for it again takes no memory, whatever it
//! holds; nothing recurses, and time and memory grow with the length of the pickle. candle has a reader whose values
//! are copied with every mention, and dropped by recursion.
//!
//! Opcodes: <https://github.com/python/cpython/blob/v3.13.0/Lib/pickletools.py>.

use std::collections::HashMap;

use crate::shown::shortened;

/// Most opcodes: some 30 describe a tensor, and no published file has 2000 tensors.
const MAX_OPCODES: usize = 1 << 20;

/// A value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value<'a> {
    /// Of no further interest: `None`, truth, a number with a fraction.
    Plain(&'static str),
    Integer(i64),
    Text(&'a str),
    /// The name of a class or a function.
    Class(&'a str),
    /// A place in the table of [`Pickle`].
    Place(usize),
}

/// What holds values.
#[derive(Debug)]
enum Holder<'a> {
    Tuple(Vec<Value<'a>>),
    /// Its items are of no interest.
    List,
    Dict(Vec<(Value<'a>, Value<'a>)>),
    /// The result of a call.
    Made {
        by: Value<'a>,
        from: Value<'a>,
    },
    /// What is stored beside the pickle.
    Stored(Value<'a>),
}

/// What a pickle describes.
#[derive(Debug)]
pub(super) struct Pickle<'a> {
    table: Vec<Holder<'a>>,
    root: Value<'a>,
}

impl<'a> Pickle<'a> {
    /// Reads it; the error says what is wrong.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, String> {
        let mut machine = Machine { rest: bytes, ..Machine::default() };
        for _ in 0..MAX_OPCODES {
            let opcode = machine.byte()?;
            if opcode == b'.' {
                let root = machine.pop()?;
                return Ok(Self { table: machine.table, root });
            }
            machine.run(opcode)?;
        }
        Err(format!("it has more than {MAX_OPCODES} opcodes"))
    }

    pub(super) fn root(&self) -> Value<'a> {
        self.root
    }

    /// The entries of a dictionary.
    pub(super) fn dict(&self, value: Value<'a>) -> Option<&[(Value<'a>, Value<'a>)]> {
        match self.holder(value)? {
            Holder::Dict(entries) => Some(entries),
            _ => None,
        }
    }

    pub(super) fn tuple(&self, value: Value<'a>) -> Option<&[Value<'a>]> {
        match self.holder(value)? {
            Holder::Tuple(items) => Some(items),
            _ => None,
        }
    }

    /// What was called to make a value, and with which arguments.
    pub(super) fn call(&self, value: Value<'a>) -> Option<(&'a str, &[Value<'a>])> {
        match self.holder(value)? {
            Holder::Made { by: Value::Class(name), from } => Some((name, self.tuple(*from)?)),
            _ => None,
        }
    }

    /// The key of what is stored beside the pickle.
    pub(super) fn stored(&self, value: Value<'a>) -> Option<&[Value<'a>]> {
        match self.holder(value)? {
            Holder::Stored(key) => self.tuple(*key),
            _ => None,
        }
    }

    /// What a value is, for messages.
    pub(super) fn describe(&self, value: Value<'a>) -> String {
        match (value, self.holder(value)) {
            (Value::Plain(what), _) => what.to_owned(),
            (Value::Integer(_), _) => "a number".to_owned(),
            (Value::Text(_), _) => "a string".to_owned(),
            (Value::Class(name), _) => format!("the class {}", shortened(name)),
            (Value::Place(_), Some(Holder::Tuple(_))) => "a tuple".to_owned(),
            (Value::Place(_), Some(Holder::List)) => "a list".to_owned(),
            (Value::Place(_), Some(Holder::Dict(_))) => "a dictionary".to_owned(),
            (Value::Place(_), Some(Holder::Made { by: Value::Class(name), .. })) => {
                format!("an object made by the class {}", shortened(name))
            }
            (Value::Place(_), Some(Holder::Made { .. })) => "an object".to_owned(),
            (Value::Place(_), Some(Holder::Stored(_)) | None) => "no value".to_owned(),
        }
    }

    fn holder(&self, value: Value<'a>) -> Option<&Holder<'a>> {
        match value {
            Value::Place(place) => self.table.get(place),
            _ => None,
        }
    }
}

#[derive(Default)]
struct Machine<'a> {
    rest: &'a [u8],
    stack: Vec<Value<'a>>,
    /// Heights of the stack that lists of values begin at.
    marks: Vec<usize>,
    memo: HashMap<u32, Value<'a>>,
    table: Vec<Holder<'a>>,
}

impl<'a> Machine<'a> {
    fn run(&mut self, opcode: u8) -> Result<(), String> {
        match opcode {
            // The version of the protocol, which the opcodes tell better.
            0x80 => self.byte().map(|_| ()),
            b'(' => {
                self.marks.push(self.stack.len());
                Ok(())
            }
            b'q' => {
                let key = self.byte()?.into();
                self.remember(key)
            }
            b'r' => {
                let key = self.array().map(u32::from_le_bytes)?;
                self.remember(key)
            }
            b'h' => {
                let key = self.byte()?.into();
                self.recall(key)
            }
            b'j' => {
                let key = self.array().map(u32::from_le_bytes)?;
                self.recall(key)
            }
            b'a' => self.pop().and_then(|_| self.check_list()),
            b'e' => self.pop_marked().and_then(|_| self.check_list()),
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.dict()?.push((key, value));
                Ok(())
            }
            b'u' => {
                let entries = pairs(&self.pop_marked()?)?;
                self.dict()?.extend(entries);
                Ok(())
            }
            // Attributes, of which dictionaries of tensors have some about their module.
            b'b' => {
                let from = self.pop()?;
                if self.dict().is_ok() {
                    return Ok(());
                }
                let by = self.pop()?;
                self.hold(Holder::Made { by, from })
            }
            _ => {
                let value = self.value(opcode)?;
                self.stack.push(value);
                Ok(())
            }
        }
    }

    /// What an opcode pushes.
    fn value(&mut self, opcode: u8) -> Result<Value<'a>, String> {
        Ok(match opcode {
            b'N' => Value::Plain("None"),
            0x88 | 0x89 => Value::Plain("a number"),
            b'K' => Value::Integer(self.byte()?.into()),
            b'M' => Value::Integer(u16::from_le_bytes(self.array()?).into()),
            b'J' => Value::Integer(i32::from_le_bytes(self.array()?).into()),
            0x8a => Value::Integer(self.long()?),
            b'G' => self.array::<8>().map(|_| Value::Plain("a number"))?,
            b'X' => {
                let length = u32::from_le_bytes(self.array()?);
                Value::Text(text(self.bytes(length as usize)?)?)
            }
            b'c' => {
                self.line()?;
                Value::Class(self.line()?)
            }
            _ => {
                let holder = self.holder(opcode)?;
                self.placed(holder)
            }
        })
    }

    /// What holds values that an opcode makes.
    fn holder(&mut self, opcode: u8) -> Result<Holder<'a>, String> {
        Ok(match opcode {
            b')' => Holder::Tuple(Vec::new()),
            b't' => Holder::Tuple(self.pop_marked()?),
            0x85 => Holder::Tuple(vec![self.pop()?]),
            0x86 => {
                let (second, first) = (self.pop()?, self.pop()?);
                Holder::Tuple(vec![first, second])
            }
            0x87 => {
                let (third, second, first) = (self.pop()?, self.pop()?, self.pop()?);
                Holder::Tuple(vec![first, second, third])
            }
            b']' => Holder::List,
            b'}' => Holder::Dict(Vec::new()),
            b'd' => Holder::Dict(pairs(&self.pop_marked()?)?),
            b'Q' => Holder::Stored(self.pop()?),
            b'R' | 0x81 => {
                let (from, by) = (self.pop()?, self.pop()?);
                match by {
                    Value::Class("OrderedDict" | "defaultdict") => Holder::Dict(Vec::new()),
                    by => Holder::Made { by, from },
                }
            }
            other => return Err(format!("the opcode {other:#04x}, which PyTorch does not write")),
        })
    }

    fn placed(&mut self, holder: Holder<'a>) -> Value<'a> {
        self.table.push(holder);
        Value::Place(self.table.len() - 1)
    }

    fn hold(&mut self, holder: Holder<'a>) -> Result<(), String> {
        let value = self.placed(holder);
        self.stack.push(value);
        Ok(())
    }

    fn remember(&mut self, key: u32) -> Result<(), String> {
        let value = self.last()?;
        self.memo.insert(key, value);
        Ok(())
    }

    fn recall(&mut self, key: u32) -> Result<(), String> {
        let value = self.memo.get(&key).ok_or_else(|| format!("value {key} is asked for before it is there"))?;
        self.stack.push(*value);
        Ok(())
    }

    fn last(&self) -> Result<Value<'a>, String> {
        let bottom = self.marks.last().copied().unwrap_or(0);
        let values = self.stack.get(bottom..).unwrap_or_default();
        values.last().copied().ok_or_else(|| "a value is missing".to_owned())
    }

    fn pop(&mut self) -> Result<Value<'a>, String> {
        let last = self.last()?;
        self.stack.pop();
        Ok(last)
    }

    /// The values since the last mark.
    fn pop_marked(&mut self) -> Result<Vec<Value<'a>>, String> {
        let mark = self.marks.pop().ok_or("the start of a list of values is missing")?;
        Ok(self.stack.split_off(mark))
    }

    fn check_list(&self) -> Result<(), String> {
        match self.last()? {
            Value::Place(place) if matches!(self.table.get(place), Some(Holder::List)) => Ok(()),
            _ => Err("an item is added to what is no list".to_owned()),
        }
    }

    fn dict(&mut self) -> Result<&mut Vec<(Value<'a>, Value<'a>)>, String> {
        match self.last()? {
            Value::Place(place) => match self.table.get_mut(place) {
                Some(Holder::Dict(entries)) => Ok(entries),
                _ => Err("an entry is added to what is no dictionary".to_owned()),
            },
            _ => Err("an entry is added to what is no dictionary".to_owned()),
        }
    }

    fn bytes(&mut self, count: usize) -> Result<&'a [u8], String> {
        let (bytes, rest) = self.rest.split_at_checked(count).ok_or("it is truncated")?;
        self.rest = rest;
        Ok(bytes)
    }

    fn byte(&mut self) -> Result<u8, String> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (array, rest) = self.rest.split_first_chunk().ok_or("it is truncated")?;
        self.rest = rest;
        Ok(*array)
    }

    /// Up to the next line break.
    fn line(&mut self) -> Result<&'a str, String> {
        let end = self.rest.iter().position(|byte| *byte == b'\n').ok_or("it is truncated")?;
        let line = self.bytes(end)?;
        self.byte()?;
        text(line)
    }

    /// A whole number of up to 8 bytes, the lowest first, the sign in the highest.
    fn long(&mut self) -> Result<i64, String> {
        let length = usize::from(self.byte()?);
        let bytes = self.bytes(length)?;
        let is_negative = bytes.last().is_some_and(|highest| *highest >= 0x80);
        let mut number = [if is_negative { 0xff } else { 0 }; 8];
        let low = number.get_mut(..length).ok_or("a number is larger than any size")?;
        low.copy_from_slice(bytes);
        Ok(i64::from_le_bytes(number))
    }
}

/// Keys and values by turns.
fn pairs<'a>(values: &[Value<'a>]) -> Result<Vec<(Value<'a>, Value<'a>)>, String> {
    let (pairs, rest) = values.as_chunks::<2>();
    if !rest.is_empty() {
        return Err("a key has no value".to_owned());
    }
    Ok(pairs.iter().map(|[key, value]| (*key, *value)).collect())
}

fn text(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes).map_err(|_| "a string is not UTF-8".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(bytes: &[u8]) -> String {
        Pickle::read(bytes).unwrap_err()
    }

    /// 30 tuples, each of the one before twice: as copies they would be 2^30 values.
    #[test]
    fn a_value_that_is_mentioned_again_is_no_copy() {
        let mut bomb = b"\x80\x02)q\x00".to_vec();
        for key in 0..30 {
            bomb.extend([b'h', key, b'h', key, 0x86, b'q', key + 1]);
        }
        bomb.push(b'.');
        let pickle = Pickle::read(&bomb).unwrap();
        assert_eq!(pickle.table.len(), 31);
        assert_eq!(pickle.describe(pickle.root()), "a tuple");
        assert_eq!(pickle.tuple(pickle.root()).unwrap().len(), 2);
    }

    #[test]
    fn depth_takes_no_stack() {
        for opcode in [0x85, b'Q'] {
            let nested = [b"N".to_vec(), vec![opcode; MAX_OPCODES - 2], b".".to_vec()].concat();
            let pickle = Pickle::read(&nested).unwrap();
            assert!(!pickle.describe(pickle.root()).is_empty());
        }
        let calls = [b"cm\nf\n".to_vec(), b")R".repeat(100_000), b".".to_vec()].concat();
        let pickle = Pickle::read(&calls).unwrap();
        assert_eq!(pickle.describe(pickle.root()), "an object");
    }

    #[test]
    fn a_list_grows_in_place_and_may_hold_itself() {
        let list = [b"]".to_vec(), b"q\x00h\x00a".repeat(300_000), b".".to_vec()].concat();
        let pickle = Pickle::read(&list).unwrap();
        assert_eq!((pickle.table.len(), pickle.describe(pickle.root())), (1, "a list".to_owned()));
    }

    #[test]
    fn a_dictionary_that_was_remembered_gets_later_entries() {
        let bytes = b"}q\x00X\x01\x00\x00\x00aK\x07s0h\x00.".to_vec();
        // `0`, which drops a value, is none of PyTorch's opcodes.
        assert_eq!(error(&bytes), "the opcode 0x30, which PyTorch does not write");
        let bytes: Vec<u8> = bytes.into_iter().filter(|byte| *byte != b'0').collect();
        let pickle = Pickle::read(&bytes).unwrap();
        assert_eq!(pickle.dict(pickle.root()).unwrap(), [(Value::Text("a"), Value::Integer(7))]);
    }

    #[test]
    fn numbers_have_a_sign() {
        let number = |bytes: &[u8]| match Pickle::read(&[bytes, b"."].concat()).unwrap().root() {
            Value::Integer(number) => number,
            other => panic!("{other:?}"),
        };
        for (bytes, expected) in [
            (&b"\x8a\x00"[..], 0),
            (b"\x8a\x01\xff", -1),
            (b"\x8a\x02\xff\x00", 255),
            (b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f", i64::MAX),
            (b"J\xff\xff\xff\xff", -1),
            (b"M\xff\xff", 65535),
        ] {
            assert_eq!(number(bytes), expected, "{bytes:?}");
        }
        assert_eq!(error(b"\x8a\x09\0\0\0\0\0\0\0\0\0."), "a number is larger than any size");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let endless = [b"N".repeat(MAX_OPCODES), b".".to_vec()].concat();
        for (bytes, expected) in [
            (&b""[..], "it is truncated"),
            (b"X\xff\xff\xff\xffabc.", "it is truncated"),
            (b"cmodule\nname", "it is truncated"),
            (b".", "a value is missing"),
            (b"N(.", "a value is missing"),
            (b"N(R.", "a value is missing"),
            (b"Nt.", "the start of a list of values is missing"),
            (b"}(Nu.", "a key has no value"),
            (b"NNa.", "an item is added to what is no list"),
            (b"]NNs.", "an entry is added to what is no dictionary"),
            (b"h\x05.", "value 5 is asked for before it is there"),
            (b"X\x01\x00\x00\x00\xff.", "a string is not UTF-8"),
            (&endless, "it has more than 1048576 opcodes"),
        ] {
            assert_eq!(error(bytes), expected, "{:?}", &bytes[..bytes.len().min(20)]);
        }
    }
}
