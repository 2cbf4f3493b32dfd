//! Points on disk: `points.json`, which a sweep goes on from, and `points.csv` for other programs.

use std::path::Path;

use serde::{Deserialize, Serialize};
use sixpack_formats::atomic;

use super::point::{Key, Point, Refused};
use crate::{Error, Result};

/// Version of `points.json`.
const VERSION: u32 = 1;

/// The points of a folder, in an order that does not depend on which was measured first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Points {
    version: u32,
    /// What was measured.
    pub points: Vec<Point>,
    /// What cannot be had.
    pub refused: Vec<Refused>,
}

impl Default for Points {
    fn default() -> Self {
        Self { version: VERSION, points: Vec::new(), refused: Vec::new() }
    }
}

impl Points {
    /// Reads `points.json`; none if there is no such file.
    ///
    /// # Errors
    /// The system's; [`Error::Points`] if the file is not what [`Points::write`] writes.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let fail = |reason: String| Error::Points { path: path.to_owned(), reason };
        match std::fs::read(path) {
            Ok(json) => match serde_json::from_slice::<Self>(&json) {
                Ok(found) if found.version == VERSION => Ok(found),
                Ok(found) => Err(fail(format!("expected version {VERSION}, found {}", found.version))),
                Err(error) => Err(fail(error.to_string())),
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(fail(error.to_string())),
        }
    }

    /// Writes `points.json`, atomically; equal points always give equal bytes.
    ///
    /// # Errors
    /// The system's, with the path.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        let mut json = serde_json::to_string_pretty(self).expect("plain structs of numbers and texts serialise");
        json.push('\n');
        Ok(atomic::write(path, json.as_bytes())?)
    }

    /// Whether a combination is done, measured or refused.
    pub fn has(&self, key: &Key) -> bool {
        self.points.iter().any(|p| p.key == *key) || self.refused.iter().any(|r| r.key == *key)
    }

    /// Adds a point at its place; one with the same key is replaced.
    pub fn add(&mut self, point: Point) {
        self.points.retain(|p| p.key != point.key);
        self.points.push(point);
        self.points.sort_by(Point::order);
    }

    /// Adds a combination that cannot be had.
    pub fn refuse(&mut self, refused: Refused) {
        self.refused.retain(|r| r.key != refused.key);
        self.refused.push(refused);
        self.refused.sort_by(Refused::order);
    }
}

/// Columns of [`csv`].
const HEADER: &str = "name,weight_decay,scheme,codec,int6_layers,target_bytes,int6,bytes,bits_per_weight,bits_per_byte,\
                      nats_per_token,gap,stderr,pareto,float_bits_per_byte,float_nats_per_token,parameters,checkpoint,\
                      text,seq_len,stride,max_tokens,calibration,calibration_tokens,tool\n";

/// The points as comma-separated values with a header, `on_front` telling which are on the Pareto front. An absent
/// number is an empty cell.
pub fn csv(points: &[&Point], on_front: &[bool]) -> String {
    let mut out = HEADER.to_owned();
    for (p, &pareto) in points.iter().zip(on_front) {
        let (settings, measure) = (&p.key.settings, &p.key.measure);
        let cells = [
            quoted(&p.name),
            or_empty(p.weight_decay),
            quoted(&settings.scheme),
            quoted(&settings.codec),
            or_empty(settings.int6_layers),
            or_empty(settings.target_bytes),
            or_empty(p.int6),
            p.packed.bytes.to_string(),
            p.bits_per_weight().to_string(),
            or_empty(p.packed.bits_per_byte),
            p.packed.nats_per_token.to_string(),
            p.gap().to_string(),
            or_empty(p.stderr),
            u8::from(pareto).to_string(),
            or_empty(p.float.bits_per_byte),
            p.float.nats_per_token.to_string(),
            p.parameters.to_string(),
            p.key.checkpoint.to_string(),
            measure.text.to_string(),
            measure.seq_len.to_string(),
            or_empty(measure.stride),
            or_empty(measure.max_tokens),
            measure.calibration.to_string(),
            measure.calibration_tokens.to_string(),
            quoted(&measure.tool),
        ];
        out.push_str(&cells.join(","));
        out.push('\n');
    }
    out
}

fn or_empty<T: ToString>(value: Option<T>) -> String {
    value.map_or(String::new(), |v| v.to_string())
}

/// A text as a cell (RFC 4180).
fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use sixpack_formats::{Digest, Score};

    use super::super::point::{Measure, Settings};
    use super::*;

    fn key(checkpoint: &[u8], int6: u64) -> Key {
        let settings = Settings {
            scheme: "reference".into(),
            codec: "brotli".into(),
            int6_layers: Some(int6),
            target_bytes: None,
        };
        let measure = Measure {
            tool: "sixpack 1".into(),
            text: Digest::of(b"text"),
            seq_len: 8,
            stride: None,
            max_tokens: Some(100),
            calibration: Digest::of(b"calibration"),
            calibration_tokens: 64,
        };
        Key { checkpoint: Digest::of(checkpoint), settings, measure }
    }

    fn point(name: &str, weight_decay: f64, int6: u64) -> Point {
        let score = |bytes, bpb| Score { bytes, nats_per_token: 0.1, bits_per_byte: Some(bpb) };
        Point {
            key: key(name.as_bytes(), int6),
            name: name.into(),
            weight_decay: Some(weight_decay),
            parameters: 1000,
            int6: Some(int6),
            float: score(4000, 1.0 / 3.0),
            packed: score(500 + int6, 0.5),
            stderr: None,
        }
    }

    fn refused(int6: u64) -> Refused {
        Refused { key: key(b"x", int6), name: "x".into(), weight_decay: None, reason: "over".into() }
    }

    #[test]
    fn files_do_not_depend_on_the_order_of_measuring() {
        let folder = tempfile::tempdir().unwrap();
        let all = [point("b", 0.1, 4), point("a", 0.2, 4), point("b", 0.1, 0), point("a", 0.02, 9)];
        let write = |order: &[usize], name: &str| {
            let mut points = Points::default();
            order.iter().for_each(|&i| points.add(all[i].clone()));
            order.iter().for_each(|&i| points.refuse(refused(i as u64)));
            let path = folder.path().join(name);
            points.write(&path).unwrap();
            assert_eq!(Points::read(&path).unwrap(), points, "what is read is what was written");
            std::fs::read(path).unwrap()
        };
        assert_eq!(write(&[0, 1, 2, 3], "one"), write(&[3, 2, 0, 1], "two"));
        let read = Points::read(folder.path().join("one")).unwrap();
        let order: Vec<_> = read.points.iter().map(|p| (p.weight_decay.unwrap(), p.int6.unwrap())).collect();
        assert_eq!(order, [(0.02, 9), (0.1, 0), (0.1, 4), (0.2, 4)]);
        assert!(read.has(&all[0].key) && read.has(&key(b"x", 3)) && !read.has(&key(b"x", 7)));
    }

    #[test]
    fn a_point_measured_again_replaces_itself() {
        let mut points = Points::default();
        points.add(point("a", 0.1, 4));
        let again = Point { stderr: Some(0.5), ..point("a", 0.1, 4) };
        points.add(again.clone());
        assert_eq!(points.points, [again]);
    }

    #[test]
    fn foreign_files_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("points.json");
        assert_eq!(Points::read(&path).unwrap(), Points::default());
        for (content, expected) in
            [("{", "EOF"), (r#"{"version":9,"points":[],"refused":[]}"#, "expected version 1, found 9")]
        {
            std::fs::write(&path, content).unwrap();
            let message = Points::read(&path).unwrap_err().to_string();
            assert!(message.contains("points.json") && message.contains(expected), "{message}");
        }
    }

    #[test]
    fn csv_has_a_cell_for_each_column() {
        let odd = point("a, \"b\"", 0.1, 4);
        let table = csv(&[&odd, &point("c", 0.2, 0)], &[true, false]);
        let lines: Vec<&str> = table.lines().collect();
        assert!(lines[1].starts_with("\"a, \"\"b\"\"\",0.1,reference,brotli,4,,4,504,4.032,0.5,0.1,"), "{}", lines[1]);
        assert_eq!(lines[2].split(',').count(), lines[0].split(',').count());
        let column = lines[0].split(',').position(|c| c == "pareto").unwrap();
        assert_eq!(lines[2].split(',').nth(column), Some("0"));
    }
}
