//! `compress --report` through the program: a page that is well-formed, complete and on its own.

mod work;

use work::{Work, number};

#[test]
fn the_page_is_whole_and_on_its_own() {
    let work = Work::trained();
    let line = "compress checkpoint --data shards --out <odd>&.6pk --calibration-tokens 2048 --plain --max-tokens 2000";
    let points = "sweep --checkpoints checkpoint --data shards --schemes reference --int6-layers 0,1 \
                  --calibration-tokens 2048 --plain --max-tokens 2000 --out .";
    work.run(&points.split_whitespace().collect::<Vec<_>>().join(" ")).ok();
    let result = work.run(&format!("{line} --report page.html --json")).json();
    let text = std::fs::read_to_string(work.at("page.html")).expect("the page");

    let options = roxmltree::ParsingOptions { allow_dtd: true, ..Default::default() };
    let page = roxmltree::Document::parse_with_options(&text, options).expect("well-formed");
    let names = ["http://www.w3.org/1999/xhtml", "http://www.w3.org/2000/svg"];
    for node in page.descendants().filter(|n| n.is_element()) {
        assert!(node.tag_name().namespace().is_some_and(|n| names.contains(&n)), "{node:?}");
        assert!(node.attributes().all(|a| !["src", "href", "onload", "onclick"].contains(&a.name())), "{node:?}");
    }
    let addresses = text.matches("http").count() - names.iter().map(|n| text.matches(n).count()).sum::<usize>();
    assert_eq!(addresses, 0, "nothing from elsewhere");
    for foreign in ["<script", "@import", "url(", "NaN"] {
        assert!(!text.contains(foreign), "{foreign}");
    }

    // The figures are those of the result.
    let has = |what: &str| page.descendants().any(|n| n.is_text() && n.text().is_some_and(|t| t.contains(what)));
    let bytes = (number(&result, "/artifact/bytes") as u64).to_string();
    let grouped = format!("{},{}", &bytes[..bytes.len() - 3], &bytes[bytes.len() - 3..]);
    assert!(has(&grouped), "{grouped}");
    for score in ["/float/bits_per_byte", "/artifact/bits_per_byte"] {
        assert!(has(&format!("{:.5}", number(&result, score))), "{score}");
    }
    for part in
        ["<odd>&.6pk", "KL divergence", "top-1", "MLP matrices", "layer 1", "reference (sweep)", "calibration data"]
    {
        assert!(has(part), "{part}");
    }
    for tensor in result["tensors"].as_array().expect("tensors") {
        assert!(has(tensor["name"].as_str().expect("a name")), "{tensor}");
    }
    // Every table has a caption and a header, every picture a title.
    let all = |name: &str| page.descendants().filter(|n| n.tag_name().name() == name).collect::<Vec<_>>();
    assert!(all("table").iter().all(|t| t.descendants().any(|n| n.tag_name().name() == "caption")));
    assert!(all("svg").iter().all(|s| s.first_element_child().is_some_and(|c| c.tag_name().name() == "title")));
    assert_eq!(all("svg").len(), 3);
    work.run(&format!("{line} --report nowhere/page.html")).fails(2, "--report");
    work.run(&format!("{line} --report shards")).fails(2, "--report");
}
