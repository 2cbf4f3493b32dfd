//! The pickle of a `.pt` file: a small stack machine that builds dicts, tuples and tensors, and runs nothing.
//!
//! Containers live in one list and are referred to by index, so that no input can make a deep or circular structure
//! that is dangerous to walk or to drop.

use std::collections::BTreeMap;

use sixpack_formats::Result;

use super::{Float, wrong};

/// A value on the stack.
#[derive(Clone, Debug)]
pub(super) enum Value<'a> {
    Int(i64),
    Text(&'a str),
    /// A class or function, by module and name.
    Global(&'a str, &'a str),
    /// Index of a container.
    Node(usize),
    /// Anything state dicts do not need: `None`, booleans, floats, byte strings, unknown objects.
    Other,
}

#[derive(Debug)]
enum Node<'a> {
    Sequence(Vec<Value<'a>>),
    Dict(Vec<(Value<'a>, Value<'a>)>),
    Storage(Storage),
    Tensor(Tensor),
}

/// A storage: values in an entry of the archive.
#[derive(Clone, Debug)]
pub(super) struct Storage {
    pub(super) dtype: DType,
    pub(super) key: String,
}

/// What a storage holds.
#[derive(Clone, Debug)]
pub(super) enum DType {
    Float(Float),
    /// The class of another storage.
    Other(String),
}

/// A view into a storage; offset and strides in elements.
#[derive(Clone, Debug)]
pub(super) struct Tensor {
    pub(super) storage: Storage,
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    pub(super) stride: Vec<usize>,
}

/// A pickle, read.
pub(super) struct Pickle<'a> {
    nodes: Vec<Node<'a>>,
    pub(super) root: Value<'a>,
}

impl<'a> Pickle<'a> {
    pub(super) fn parse(input: &'a [u8]) -> Result<Self> {
        let mut machine =
            Machine { input, at: 0, stack: Vec::new(), marks: Vec::new(), memo: BTreeMap::new(), nodes: Vec::new() };
        let root = machine.run()?;
        Ok(Self { nodes: machine.nodes, root })
    }

    /// The entries of a dict; none of anything else.
    pub(super) fn entries(&self, value: &Value<'_>) -> &[(Value<'a>, Value<'a>)] {
        match value {
            Value::Node(i) => match &self.nodes[*i] {
                Node::Dict(entries) => entries,
                _ => &[],
            },
            _ => &[],
        }
    }

    /// The value of a dict's key.
    pub(super) fn entry(&self, dict: &Value<'_>, key: &str) -> Option<&Value<'a>> {
        self.entries(dict).iter().find(|(k, _)| self.text(k) == Some(key)).map(|(_, value)| value)
    }

    pub(super) fn text(&self, value: &Value<'a>) -> Option<&'a str> {
        match value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn tensor(&self, value: &Value<'_>) -> Option<&Tensor> {
        match value {
            Value::Node(i) => match &self.nodes[*i] {
                Node::Tensor(tensor) => Some(tensor),
                _ => None,
            },
            _ => None,
        }
    }
}

struct Machine<'a> {
    input: &'a [u8],
    at: usize,
    stack: Vec<Value<'a>>,
    /// Heights of the stack at the open marks.
    marks: Vec<usize>,
    memo: BTreeMap<u32, Value<'a>>,
    nodes: Vec<Node<'a>>,
}

impl<'a> Machine<'a> {
    /// Runs to the STOP and returns what is on the stack.
    fn run(&mut self) -> Result<Value<'a>> {
        loop {
            let start = self.at;
            let op = self.take(1)?[0];
            match op {
                b'.' => return self.pop(),
                0x80 => drop(self.take(1)?),
                0x95 => drop(self.take(8)?),
                b'(' => self.marks.push(self.stack.len()),
                b'0' => {
                    self.pop()?;
                }
                b'N' | 0x88 | 0x89 => self.stack.push(Value::Other),
                b'J' => {
                    let n = self.number(4)? as u32 as i32;
                    self.stack.push(Value::Int(n.into()));
                }
                b'K' | b'M' => {
                    let n = self.number(if op == b'K' { 1 } else { 2 })?;
                    self.stack.push(Value::Int(n as i64));
                }
                0x8a => self.long_integer()?,
                b'G' => {
                    self.take(8)?;
                    self.stack.push(Value::Other);
                }
                b'X' | 0x8c => {
                    let len = self.number(if op == b'X' { 4 } else { 1 })? as usize;
                    let text = self.text(len)?;
                    self.stack.push(Value::Text(text));
                }
                b'T' | b'U' | b'B' | b'C' => {
                    let len = self.number(if op == b'T' || op == b'B' { 4 } else { 1 })? as usize;
                    self.take(len)?;
                    self.stack.push(Value::Other);
                }
                b'c' => {
                    let (module, name) = (self.line()?, self.line()?);
                    self.stack.push(Value::Global(module, name));
                }
                0x93 => {
                    let (name, module) = (self.pop()?, self.pop()?);
                    let (Value::Text(module), Value::Text(name)) = (module, name) else {
                        return Err(wrong("pickle", start, "a module and a name", "other values"));
                    };
                    self.stack.push(Value::Global(module, name));
                }
                b'}' => self.node(Node::Dict(Vec::new())),
                b']' | b')' => self.node(Node::Sequence(Vec::new())),
                b't' | b'l' => {
                    let items = self.pop_mark()?;
                    self.node(Node::Sequence(items));
                }
                0x85..=0x87 => {
                    let count = usize::from(op - 0x84);
                    let from = self.stack.len().checked_sub(count).filter(|&from| from >= self.floor());
                    let from = from.ok_or_else(|| self.underflow())?;
                    let items = self.stack.split_off(from);
                    self.node(Node::Sequence(items));
                }
                b'a' => {
                    let item = self.pop()?;
                    self.append(vec![item])?;
                }
                b'e' => {
                    let items = self.pop_mark()?;
                    self.append(items)?;
                }
                b's' => {
                    let (value, key) = (self.pop()?, self.pop()?);
                    self.set_items(vec![key, value])?;
                }
                b'u' => {
                    let items = self.pop_mark()?;
                    self.set_items(items)?;
                }
                b'q' | b'r' => {
                    let key = self.number(if op == b'q' { 1 } else { 4 })? as u32;
                    self.memo.insert(key, self.top()?.clone());
                }
                0x94 => {
                    let key = self.memo.len() as u32;
                    self.memo.insert(key, self.top()?.clone());
                }
                b'h' | b'j' => {
                    let key = self.number(if op == b'h' { 1 } else { 4 })? as u32;
                    let value = self.memo.get(&key).cloned();
                    self.stack.push(value.ok_or_else(|| wrong("pickle", start, "a value kept before", key))?);
                }
                b'Q' => self.persistent()?,
                b'R' => self.reduce()?,
                // BUILD: the attributes of an object, which state dicts do not need.
                b'b' => {
                    self.pop()?;
                }
                other => return Err(wrong("pickle", start, "an opcode of a state dict", format!("{other:#04x}"))),
            }
        }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let bytes = self.at.checked_add(len).and_then(|end| self.input.get(self.at..end));
        let bytes = bytes.ok_or_else(|| wrong("pickle", self.at, format!("{len} more bytes"), "the end"))?;
        self.at += len;
        Ok(bytes)
    }

    fn number(&mut self, len: usize) -> Result<u64> {
        Ok(self.take(len)?.iter().rev().fold(0, |n, &b| n << 8 | u64::from(b)))
    }

    fn text(&mut self, len: usize) -> Result<&'a str> {
        let at = self.at;
        std::str::from_utf8(self.take(len)?).map_err(|_| wrong("pickle", at, "UTF-8", "other bytes"))
    }

    fn line(&mut self) -> Result<&'a str> {
        let rest = &self.input[self.at..];
        let len = rest.iter().position(|&b| b == b'\n');
        let text = self.text(len.ok_or_else(|| wrong("pickle", self.at, "a line", "the end"))?)?;
        self.take(1)?;
        Ok(text)
    }

    /// An integer of up to eight bytes; longer ones are no sizes.
    fn long_integer(&mut self) -> Result<()> {
        let len = self.number(1)? as usize;
        let bytes = self.take(len)?;
        let value = if len > 8 {
            Value::Other
        } else {
            let negative = bytes.last().is_some_and(|b| b & 0x80 != 0);
            let mut wide = [if negative { 0xff } else { 0 }; 8];
            wide[..len].copy_from_slice(bytes);
            Value::Int(i64::from_le_bytes(wide))
        };
        self.stack.push(value);
        Ok(())
    }

    /// Height of the stack at the innermost open mark, below which nothing may be popped.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn underflow(&self) -> sixpack_formats::Error {
        wrong("pickle", self.at, "a value on the stack", "none")
    }

    fn pop(&mut self) -> Result<Value<'a>> {
        if self.stack.len() <= self.floor() {
            return Err(self.underflow());
        }
        self.stack.pop().ok_or_else(|| self.underflow())
    }

    fn top(&self) -> Result<&Value<'a>> {
        self.stack.last().ok_or_else(|| self.underflow())
    }

    fn pop_mark(&mut self) -> Result<Vec<Value<'a>>> {
        let mark = self.marks.pop().ok_or_else(|| wrong("pickle", self.at, "a mark", "none"))?;
        Ok(self.stack.split_off(mark))
    }

    fn node(&mut self, node: Node<'a>) {
        self.stack.push(Value::Node(self.nodes.len()));
        self.nodes.push(node);
    }

    fn append(&mut self, items: Vec<Value<'a>>) -> Result<()> {
        if let &Value::Node(i) = self.top()?
            && let Node::Sequence(list) = &mut self.nodes[i]
        {
            list.extend(items);
        }
        Ok(())
    }

    fn set_items(&mut self, items: Vec<Value<'a>>) -> Result<()> {
        if let &Value::Node(i) = self.top()?
            && let Node::Dict(dict) = &mut self.nodes[i]
        {
            let pairs = items.as_chunks::<2>().0;
            dict.extend(pairs.iter().map(|[key, value]| (key.clone(), value.clone())));
        }
        Ok(())
    }

    /// The items of a tuple or list.
    fn items(&self, value: &Value<'a>) -> Option<&[Value<'a>]> {
        match value {
            Value::Node(i) => match &self.nodes[*i] {
                Node::Sequence(items) => Some(items),
                _ => None,
            },
            _ => None,
        }
    }

    /// `("storage", class, key, location, elements)` becomes a storage.
    fn persistent(&mut self) -> Result<()> {
        let id = self.pop()?;
        let storage = match self.items(&id) {
            Some(&[Value::Text("storage"), Value::Global(_, class), Value::Text(key), ..]) => {
                let dtype = match class {
                    "FloatStorage" => DType::Float(Float::F32),
                    "HalfStorage" => DType::Float(Float::F16),
                    "BFloat16Storage" => DType::Float(Float::Bf16),
                    "DoubleStorage" => DType::Float(Float::F64),
                    other => DType::Other(other.to_owned()),
                };
                Storage { dtype, key: key.to_owned() }
            }
            _ => return Err(wrong("pickle", self.at, "a storage", "another persistent id")),
        };
        self.node(Node::Storage(storage));
        Ok(())
    }

    /// Calls the few functions that make tensors and dicts; any other call gives an object that is passed over.
    fn reduce(&mut self) -> Result<()> {
        let (args, function) = (self.pop()?, self.pop()?);
        let args = self.items(&args).map(<[_]>::to_vec).unwrap_or_default();
        let value = self.call(&function, &args)?;
        self.stack.push(value);
        Ok(())
    }

    fn call(&mut self, function: &Value<'a>, args: &[Value<'a>]) -> Result<Value<'a>> {
        let node = match (function, args) {
            (Value::Global("collections", "OrderedDict"), _) => Node::Dict(Vec::new()),
            (Value::Global("torch._utils", "_rebuild_parameter"), [tensor, ..]) => return Ok(tensor.clone()),
            // A subclass of Tensor: (function, class, arguments, attributes).
            (Value::Global("torch._tensor", "_rebuild_from_type_v2"), [inner, _, inner_args, ..]) => {
                let tensor = (inner, self.items(inner_args).map(<[_]>::to_vec).unwrap_or_default());
                match tensor {
                    (Value::Global("torch._utils", "_rebuild_tensor_v2"), args) => Node::Tensor(self.tensor(&args)?),
                    _ => return Ok(Value::Other),
                }
            }
            (Value::Global("torch._utils", "_rebuild_tensor_v2"), args) => Node::Tensor(self.tensor(args)?),
            _ => return Ok(Value::Other),
        };
        self.nodes.push(node);
        Ok(Value::Node(self.nodes.len() - 1))
    }

    /// `(storage, offset, shape, stride, …)`.
    fn tensor(&self, args: &[Value<'a>]) -> Result<Tensor> {
        let fail = || wrong("pickle", self.at, "a tensor's storage, offset, shape and strides", "other values");
        let [Value::Node(storage), Value::Int(offset), shape, stride, ..] = args else { return Err(fail()) };
        let Node::Storage(storage) = &self.nodes[*storage] else { return Err(fail()) };
        let size = |n: &i64| usize::try_from(*n).ok();
        let sizes = |value: &Value<'a>| -> Option<Vec<usize>> {
            let number = |v: &Value<'a>| if let Value::Int(n) = v { size(n) } else { None };
            self.items(value)?.iter().map(number).collect()
        };
        let (shape, stride) = (sizes(shape).ok_or_else(fail)?, sizes(stride).ok_or_else(fail)?);
        Ok(Tensor { storage: storage.clone(), offset: size(offset).ok_or_else(fail)?, shape, stride })
    }
}
