//! Header, section table and sections: the file as parts that are checked, before anyone asks what they mean.

use crate::{Codec, Digest, Error, Result};

/// First bytes of every artifact.
pub(super) const MAGIC: [u8; 8] = *b"\x896pk\r\n\x1a\n";
/// The version this program writes and reads.
pub(super) const VERSION: u16 = 2;
/// Bytes before the section table.
pub(super) const HEADER: usize = 28;
/// Bytes of one row of the section table.
pub(super) const ROW: usize = 28;
/// Most sections a file may have.
const MAX_SECTIONS: usize = 64;
/// Flag of a section that a reader must know.
const REQUIRED: u8 = 1;

/// What a section holds. The numbers stand in files: later kinds append.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u16)]
pub enum Kind {
    /// The configuration.
    Config = 1,
    /// How each tensor is kept.
    Forms = 2,
    /// The tokenizer.
    Tokenizer = 3,
    /// What the artifact was made from.
    Provenance = 4,
    /// The measured score.
    Score = 5,
    /// Codes of the attention matrices.
    Attention = 16,
    /// Codes of the MLPs' first matrices.
    MlpUp = 17,
    /// Codes of the MLPs' second matrices.
    MlpDown = 18,
    /// Codes of the embeddings and of everything else.
    Tables = 19,
    /// Row scales and column factors of all codes.
    Scales = 20,
    /// Tensors in f16.
    Halves = 21,
}

impl Kind {
    /// Every kind, in the order of their numbers, which is the order in a file.
    pub const ALL: [Self; 11] = [
        Self::Config,
        Self::Forms,
        Self::Tokenizer,
        Self::Provenance,
        Self::Score,
        Self::Attention,
        Self::MlpUp,
        Self::MlpDown,
        Self::Tables,
        Self::Scales,
        Self::Halves,
    ];

    /// The streams of tensors among them.
    pub const STREAMS: [Self; 6] =
        [Self::Attention, Self::MlpUp, Self::MlpDown, Self::Tables, Self::Scales, Self::Halves];

    /// Its name in ledgers and errors.
    pub fn name(self) -> &'static str {
        match self {
            Self::Config => "configuration",
            Self::Forms => "tensor forms",
            Self::Tokenizer => "tokenizer",
            Self::Provenance => "provenance",
            Self::Score => "score",
            Self::Attention => "attention codes",
            Self::MlpUp => "MLP up codes",
            Self::MlpDown => "MLP down codes",
            Self::Tables => "table codes",
            Self::Scales => "scales",
            Self::Halves => "halves",
        }
    }

    /// Whether a model without this section is another model.
    fn required(self) -> bool {
        !matches!(self, Self::Provenance | Self::Score)
    }

    fn from_id(id: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|&kind| kind as u16 == id)
    }
}

/// A section as it lies in the file.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Section<'a> {
    /// What it holds; `None` for a kind of a later version.
    pub(super) kind: Option<Kind>,
    /// The kind's number.
    pub(super) id: u16,
    /// The codec's number.
    pub(super) codec: u8,
    /// Size when decoded.
    pub(super) raw: u64,
    /// Where the coded bytes start in the file.
    pub(super) offset: usize,
    /// The coded bytes.
    pub(super) coded: &'a [u8],
}

impl Section<'_> {
    /// The decoded content; at most `cap` bytes of it.
    pub(super) fn decode(&self, cap: u64) -> Result<Vec<u8>> {
        let name = self.kind.map_or("unknown", Kind::name);
        let fail = |expected: String, found: String| Err(Error::Stream { stream: name.into(), expected, found });
        let Some(codec) = Codec::from_id(self.codec) else {
            return fail(format!("one of the {} codecs of this version", Codec::ALL.len()), self.codec.to_string());
        };
        match usize::try_from(self.raw) {
            Ok(raw) if self.raw <= cap => codec.decode(self.coded, raw, name),
            _ => fail(format!("at most {cap} bytes"), format!("{} bytes", self.raw)),
        }
    }
}

/// A section to be written.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Coded {
    pub(super) kind: Kind,
    pub(super) codec: Codec,
    pub(super) raw: u64,
    pub(super) coded: Vec<u8>,
}

/// The file of these sections, which must come in the order of their kinds.
pub(super) fn assemble(sections: &[Coded]) -> Vec<u8> {
    let head = HEADER + ROW * sections.len();
    let size = head + sections.iter().map(|s| s.coded.len()).sum::<usize>();
    let mut file = Vec::with_capacity(size);
    file.extend(MAGIC);
    file.extend(VERSION.to_le_bytes());
    file.extend((sections.len() as u16).to_le_bytes());
    file.extend((size as u64).to_le_bytes());
    file.extend([0; 8]);
    for section in sections {
        file.extend((section.kind as u16).to_le_bytes());
        file.extend([u8::from(section.kind.required()) * REQUIRED, section.codec.id()]);
        file.extend(section.raw.to_le_bytes());
        file.extend((section.coded.len() as u64).to_le_bytes());
        file.extend(Digest::of(&section.coded).short().to_le_bytes());
    }
    for section in sections {
        file.extend(&section.coded);
    }
    seal(&mut file, sections.len());
    file
}

/// Puts the checksum of header and table into a file of `n` sections.
pub(super) fn seal(file: &mut [u8], n: usize) {
    let checksum = head_checksum(file, n);
    file[20..28].copy_from_slice(&checksum.to_le_bytes());
}

fn head_checksum(file: &[u8], n: usize) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&file[..20]).update(&file[HEADER..HEADER + ROW * n]);
    Digest::from(*hasher.finalize().as_bytes()).short()
}

/// Takes a file apart: every byte belongs to the header, the table or one section, and every checksum holds.
pub(super) fn parse(file: &[u8]) -> Result<Vec<Section<'_>>> {
    let n = parse_header(file)?;
    let mut sections = Vec::with_capacity(n);
    let (mut start, mut last) = (HEADER + ROW * n, 0);
    for at in (0..n).map(|i| HEADER + ROW * i) {
        let section = parse_row(file, at, start)?;
        if section.id <= last {
            return Err(wrong(at, format!("a section kind above {last}"), section.id));
        }
        last = section.id;
        start += section.coded.len();
        sections.push(section);
    }
    if start != file.len() {
        return Err(wrong(
            start,
            "the end of the file after its last section",
            format!("{} bytes", file.len() - start),
        ));
    }
    Ok(sections)
}

/// Checks everything before the first row of the table. Returns the number of rows, which all lie in the file.
fn parse_header(file: &[u8]) -> Result<usize> {
    if !file.starts_with(&MAGIC) {
        let start = &file[..file.len().min(MAGIC.len())];
        return Err(wrong(0, format!("the magic of an artifact {MAGIC:02x?}"), format!("{start:02x?}")));
    }
    let Some(header) = file.first_chunk::<HEADER>() else {
        return Err(wrong(0, format!("a header of {HEADER} bytes"), format!("{} bytes", file.len())));
    };
    let version = u16::from_le_bytes([header[8], header[9]]);
    if version != VERSION {
        return Err(wrong(8, format!("version {VERSION}"), version));
    }
    let n = usize::from(u16::from_le_bytes([header[10], header[11]]));
    if !(1..=MAX_SECTIONS).contains(&n) {
        return Err(wrong(10, format!("1 to {MAX_SECTIONS} sections"), n));
    }
    let size = number(file, 12);
    if size != file.len() as u64 {
        return Err(wrong(12, format!("a file of {size} bytes"), format!("{} bytes", file.len())));
    }
    if file.len() < HEADER + ROW * n {
        return Err(wrong(HEADER, format!("a table of {n} sections"), format!("{} bytes", file.len() - HEADER)));
    }
    let (stated, real) = (number(file, 20), head_checksum(file, n));
    if stated != real {
        return Err(wrong(20, format!("header checksum {real:016x}"), format!("{stated:016x}")));
    }
    Ok(n)
}

/// The section that the row at `at` describes and that starts at `start`.
fn parse_row(file: &[u8], at: usize, start: usize) -> Result<Section<'_>> {
    let id = u16::from_le_bytes([file[at], file[at + 1]]);
    let (flags, codec) = (file[at + 2], file[at + 3]);
    let (raw, size, checksum) = (number(file, at + 4), number(file, at + 12), number(file, at + 20));
    let kind = Kind::from_id(id);
    if flags & !REQUIRED != 0 {
        return Err(wrong(at + 2, "flags 0 or 1", flags));
    }
    if kind.is_none() && flags & REQUIRED != 0 {
        return Err(wrong(at, "sections this version knows, or optional ones", format!("required section {id}")));
    }
    let left = file.len() - start;
    let Some(end) = usize::try_from(size).ok().filter(|&size| size <= left).map(|size| start + size) else {
        return Err(wrong(at + 12, format!("at most the {left} bytes left for section {id}"), format!("{size} bytes")));
    };
    let coded = &file[start..end];
    let real = Digest::of(coded).short();
    if real != checksum {
        let name = kind.map_or_else(|| id.to_string(), |kind| kind.name().to_owned());
        let expected = format!("section `{name}` with checksum {checksum:016x}");
        return Err(wrong(start, expected, format!("checksum {real:016x}")));
    }
    Ok(Section { kind, id, codec, raw, offset: start, coded })
}

/// The u64 at `at`, which the caller has checked to lie in the file.
fn number(file: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|i| file[at + i]))
}

fn wrong(offset: usize, expected: impl Into<String>, found: impl ToString) -> Error {
    let what = "artifact";
    Error::Layout { what, offset: offset as u64, expected: expected.into(), found: found.to_string() }
}
