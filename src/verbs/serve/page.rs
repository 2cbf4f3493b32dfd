//! The web page, which is part of the program.

/// A file of the page.
#[derive(Debug)]
pub(super) struct Asset {
    /// Where it is.
    pub(super) path: &'static str,
    /// What it is.
    pub(super) content_type: &'static str,
    /// What is in it.
    pub(super) bytes: &'static [u8],
}

/// Everything that is served beside the API.
pub(super) static ASSETS: &[Asset] =
    &[Asset { path: "/", content_type: "text/html; charset=utf-8", bytes: include_bytes!("page.html") }];

/// What the page may do: nothing from elsewhere, and no page of elsewhere may hold it in a frame.
pub(super) const POLICY: &str = "default-src 'self' 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'";
