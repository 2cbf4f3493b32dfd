//! Where in a plan's file something is, for errors.

use std::path::Path;

use toml::Spanned;

use crate::Error;

/// The file that is read.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) text: &'a str,
    pub(super) path: &'a Path,
}

impl Place<'_> {
    pub(super) fn line<T>(&self, value: &Spanned<T>) -> usize {
        self.line_at(value.span().start)
    }

    fn line_at(&self, offset: usize) -> usize {
        1 + self.text.as_bytes().iter().take(offset).filter(|&&b| b == b'\n').count()
    }

    /// An error on the line of a value.
    pub(super) fn at<T>(&self, value: &Spanned<T>, reason: impl ToString) -> Error {
        self.on(self.line(value), reason)
    }

    fn on(&self, line: usize, reason: impl ToString) -> Error {
        Error::Plan { place: format!("{}, line {line}", self.path.display()), reason: reason.to_string() }
    }

    /// An error of the plan as a whole.
    pub(super) fn whole(&self, reason: impl ToString) -> Error {
        Error::Plan { place: self.path.display().to_string(), reason: reason.to_string() }
    }

    pub(super) fn syntax(&self, error: &toml::de::Error) -> Error {
        match error.span() {
            Some(span) => self.on(self.line_at(span.start), error.message()),
            None => self.whole(error.message()),
        }
    }
}
