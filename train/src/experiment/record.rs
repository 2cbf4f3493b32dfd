//! What came of one run.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What must be the same for runs to be compared, beside the recipe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conditions {
    /// Name and version of the program.
    pub tool: String,
    /// Hashes of the training shards.
    pub training_data: Vec<String>,
    /// Hashes of the validation shards.
    pub validation_data: Vec<String>,
    /// How models are scored.
    pub eval: Vec<String>,
    /// How they are compressed, if they are.
    pub compress: Vec<String>,
}

impl Conditions {
    /// The first thing in which the two differ: its name, what `self` has and what `other` has.
    pub fn difference(&self, other: &Self) -> Option<(&'static str, String, String)> {
        let lists = [
            ("data: training", &self.training_data, &other.training_data),
            ("data: validation", &self.validation_data, &other.validation_data),
            ("[eval]", &self.eval, &other.eval),
            ("[compress]", &self.compress, &other.compress),
        ];
        let tool = (self.tool != other.tool).then(|| ("the program", self.tool.clone(), other.tool.clone()));
        let list = || lists.into_iter().find(|(_, a, b)| a != b).map(|(what, a, b)| (what, a.join(" "), b.join(" ")));
        tool.or_else(list)
    }
}

/// A run that is over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The arm's id.
    pub id: String,
    /// The seed.
    pub seed: u64,
    /// What came of it.
    pub outcome: Outcome,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// With a model.
    Trained(Box<Trained>),
    /// Without: why.
    Crash(String),
}

/// A trained model, scored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trained {
    /// Of the model in full precision on the validation split.
    pub bits_per_byte: f64,
    /// The same in nats per token.
    pub nats_per_token: f64,
    /// Estimated bytes of an artifact of the model in scheme `reference`.
    pub bytes: u64,
    /// Optimizer steps.
    pub steps: u64,
    /// Tokens seen.
    pub tokens: u64,
    /// Artifacts made of it.
    pub artifacts: Vec<Artifact>,
    /// What is another each time it is measured.
    pub measured: Measured,
    /// The training loss on its way.
    pub curve: Vec<CurvePoint>,
}

/// An artifact of a trained model, or why there is none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Artifact {
    /// Its settings, as part of an id.
    pub id: String,
    /// Size and bits per byte of the file as read back.
    pub score: Option<(u64, f64)>,
    /// Why it cannot be had.
    pub refused: Option<String>,
}

/// Measured values: no two runs have the same.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    /// Tokens per second of training.
    pub tokens_per_second: f64,
    /// Seconds of training, as the budget counts them.
    pub training_seconds: f64,
    /// Seconds of the run with all that belongs to it.
    pub seconds: f64,
    /// Most memory that the training's process had at once, in bytes; where the system tells.
    pub peak_memory: Option<u64>,
}

/// Tokens seen, seconds of training, and the mean loss since the point before, in nats per token.
pub type CurvePoint = (u64, f64, f64);

/// Most points of a curve.
const CURVE: usize = 60;

/// What a training's log says of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// Steps at the end.
    pub steps: u64,
    /// Tokens at the end.
    pub tokens: u64,
    /// Seconds at the end.
    pub seconds: f64,
    /// Estimated bytes at the end.
    pub bytes: u64,
    /// The curve, thinned.
    pub curve: Vec<CurvePoint>,
}

impl Log {
    /// Reads the JSON lines of a training. `None` if it did not end by itself.
    pub fn read(text: &str) -> Option<Self> {
        let events: Vec<Value> = text.lines().map_while(|line| serde_json::from_str(line).ok()).collect();
        let end = events.last().filter(|e| e["event"] == "end" && e["stopped"] == false)?;
        let steps: Vec<&Value> = events.iter().filter(|e| e["event"] == "step").collect();
        let point = |e: &&Value| Some((e["tokens"].as_u64()?, e["elapsed"].as_f64()?, e["loss"].as_f64()?));
        Some(Self {
            steps: end["step"].as_u64()?,
            tokens: end["tokens"].as_u64()?,
            seconds: end["elapsed"].as_f64()?,
            bytes: steps.last()?["projected_bytes"].as_u64()?,
            curve: thinned(&steps.iter().filter_map(point).collect::<Vec<_>>()),
        })
    }
}

/// At most [`CURVE`] points: neighbours are joined, their losses averaged by tokens.
fn thinned(points: &[CurvePoint]) -> Vec<CurvePoint> {
    let mut before = 0;
    let mut join = |part: &[CurvePoint]| {
        let (mut sum, start) = (0.0, before);
        for &(tokens, _, loss) in part {
            sum += loss * (tokens - before) as f64;
            before = tokens;
        }
        let (tokens, seconds, _) = part[part.len() - 1];
        (tokens, seconds, sum / (tokens - start).max(1) as f64)
    };
    points.chunks(points.len().div_ceil(CURVE).max(1)).map(&mut join).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_read_to_its_end() {
        let step = |i: u64| {
            format!(
                r#"{{"event":"step","step":{i},"tokens":{},"elapsed":{i}.5,"loss":{},"projected_bytes":{}}}"#,
                i * 10,
                9 - i,
                100 + i
            )
        };
        let text = format!(
            "{}\n{}\n{}\n{}\n",
            r#"{"event":"start","recipe":""}"#,
            step(1),
            step(2),
            r#"{"event":"end","step":2,"tokens":20,"elapsed":2.75,"stopped":false}"#
        );
        let log = Log::read(&text).unwrap();
        assert_eq!((log.steps, log.tokens, log.seconds, log.bytes), (2, 20, 2.75, 102));
        assert_eq!(log.curve, [(10, 1.5, 8.0), (20, 2.5, 7.0)]);
        assert_eq!(Log::read(&text.replace("false", "true")), None, "it was stopped");
        assert_eq!(Log::read(&text[..text.len() - 20]), None, "half a line");
        assert_eq!(Log::read(""), None);
    }

    #[test]
    fn a_long_curve_is_thinned_by_means() {
        let points: Vec<CurvePoint> =
            (1..=1000).map(|i| (i * 10, i as f64, if i % 2 == 0 { 2.0 } else { 4.0 })).collect();
        let curve = thinned(&points);
        assert!(curve.len() <= CURVE && curve.len() > CURVE / 2);
        assert_eq!(curve.last().map(|p| (p.0, p.1)), Some((10_000, 1000.0)));
        assert!(curve.iter().all(|p| (p.2 - 3.0).abs() < 0.1), "{curve:?}");
        assert_eq!(thinned(&points[..3]), points[..3]);
    }
}
