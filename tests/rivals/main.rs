//! The page that `cargo bench --bench rivals` makes: it is whole, has every figure, and draws numbers where they belong.

#[path = "../../benches/rivals/figures.rs"]
#[allow(dead_code)]
mod figures;
#[path = "../../benches/rivals/machine.rs"]
#[allow(dead_code)]
mod machine;
#[path = "../../benches/rivals/report/mod.rs"]
mod report;

use figures::{Figure, Figures};
use machine::Machine;
use report::axis::Axis;
use report::words::{quantity, times};
use report::{Outcome, render};
use roxmltree::{Document, Node, ParsingOptions};

#[test]
fn the_page_is_well_formed_and_needs_nothing_else() {
    let page = render(&outcome());
    let document = parsed(&page);
    for node in document.descendants().filter(Node::is_element) {
        for attribute in ["src", "srcset", "data"] {
            assert!(!node.has_attribute(attribute), "{node:?}");
        }
        let is_inside = |link: &str| link.starts_with('#');
        assert!(node.attribute("href").is_none_or(is_inside), "{node:?}");
        assert!(!["script", "link", "img", "iframe", "object"].contains(&node.tag_name().name()), "{node:?}");
    }
    assert!(!page.contains("url(") && !page.contains("@import"));
}

#[test]
fn every_figure_stands_in_a_table_with_its_spread() {
    let outcome = outcome();
    let page = render(&outcome);
    let document = parsed(&page);
    let rows: Vec<Vec<String>> = elements(&document, "tr").map(|row| cells(&row)).collect();
    for figure in &outcome.figures.measured {
        let number = |number| quantity(number, figure.unit);
        let (least, greatest) = figure.spread();
        let found = rows.iter().any(|row| {
            row.len() == 9
                && row[0].starts_with(&figure.case)
                && row[1] == figure.side
                && row[2] == figure.measure
                && row[3..6] == [number(figure.median()), number(least), number(greatest)]
                && row[8] == figure.note
        });
        assert!(found, "{figure:?}");
    }
}

#[test]
fn what_is_plotted_has_a_mark_for_each_median_and_a_line_for_its_spread() {
    let page = render(&outcome());
    let document = parsed(&page);
    let row = |side: &str, number: &str| {
        let rows = elements(&document, "div")
            .filter(|row| row.attribute("class").is_some_and(|class| class.starts_with("row")));
        let mut found = rows.filter(|row| {
            let text: Vec<String> = row.children().map(|child| words(&child)).collect();
            text.first().is_some_and(|first| first == side) && text.get(2).is_some_and(|text| text == number)
        });
        found.next().unwrap_or_else(|| panic!("no row of {side} with {number}"))
    };
    // Linear from 0 to 4 s, in the plot of seconds: medians at their places, lines from the least to the greatest.
    let axis = Axis::over([1.0, 2.0, 3.0, 3.5].into_iter(), "s");
    for (side, median, number, least, greatest) in
        [("ours", 2.0, "2.00 s", 1.0, 3.0), ("rsync -z", 3.0, "3.00 s", 3.0, 3.5)]
    {
        let row = row(side, number);
        let marks: Vec<&str> = of_class(&row, "point").filter_map(|mark| mark.attribute("x")).collect();
        assert_eq!(marks, [format!("{:.2}%", axis.place(median))], "{side}");
        let line = of_class(&row, "whisker").next().expect("a line");
        let ends = [line.attribute("x1"), line.attribute("x2")].map(Option::unwrap);
        assert_eq!(ends, [least, greatest].map(|number| format!("{:.2}%", axis.place(number))), "{side}");
    }
    assert_eq!(of_class(&document.root_element(), "curves").count(), 1);
    assert!(elements(&document, "h4").any(|title| words(&title) == "Waits: sender's commit"));
}

#[test]
fn where_a_rival_was_ahead_is_told_and_a_yardstick_is_no_rival() {
    let page = render(&outcome());
    let document = parsed(&page);
    let rows: Vec<Vec<String>> =
        elements(&document, "tr").map(|row| cells(&row)).filter(|row| row.len() == 6).collect();
    let lost = |case: &str, rival: &str| rows.iter().find(|row| row[0] == case && row[2] == rival);
    let row = lost("Pairs: behind60", "rsync -z").expect("rsync was ahead in bytes");
    assert_eq!(row[1..], ["wire", "rsync -z", "500 KB", "1.00 MB", "0.50×"]);
    // Spreads that touch are nobody's victory; a bare walk does less than the work; what came before is no contender.
    assert!(lost("Pairs: close", "rsync -z").is_none());
    assert!(!rows.iter().any(|row| row[2] == "bare walk" || row[2].contains("before")), "{rows:?}");
    // Of rates, more is better.
    assert!(lost("Scale: unchanged", "Swift").is_none());
    assert_eq!(rows.iter().filter(|row| row[0] != "case").count(), 1, "{rows:?}");
}

#[test]
fn what_could_not_be_measured_stands_there_with_its_reason_and_foreign_text_is_text() {
    let page = render(&outcome());
    let document = parsed(&page);
    let told: Vec<(String, String)> = elements(&document, "dt")
        .map(|what| (words(&what), words(&what.next_sibling_element().expect("a reason"))))
        .collect();
    assert!(told.contains(&("rdiff".to_owned(), "it is not <installed> & \"gone\"".to_owned())), "{told:?}");
    assert!(told.contains(&("Kernel".to_owned(), "Linux <6>".to_owned())), "{told:?}");
    assert!(page.contains("cargo bench --bench rivals -- --quick --root &quot;a &amp; b&quot;"));
    let empty = Outcome { figures: Figures::default(), ..outcome() };
    parsed(&render(&empty));
}

#[test]
fn an_outcome_comes_back_from_its_json() {
    let outcome = outcome();
    let text = serde_json::to_string(&outcome).expect("JSON");
    let back: Outcome = serde_json::from_str(&text).expect("an outcome");
    assert_eq!(back.figures.measured, outcome.figures.measured);
    assert_eq!(render(&back), render(&outcome));
}

#[test]
fn numbers_are_told_to_three_digits_in_fitting_units() {
    for (number, unit, text) in [
        (0.0, "bytes", "0 B"),
        (253.0, "bytes", "253 B"),
        (999.0, "bytes", "999 B"),
        (999.9, "bytes", "1.00 KB"),
        (1000.0, "bytes", "1.00 KB"),
        (22_509.0, "bytes", "22.5 KB"),
        (145_234_000.0, "bytes", "145 MB"),
        (512.0, "KiB", "512 KiB"),
        (1274.0, "KiB", "1.24 MiB"),
        (0.0, "s", "0 s"),
        (0.000_25, "s", "250 µs"),
        (0.9996, "s", "1.00 s"),
        (0.0714, "s", "71.4 ms"),
        (19.04, "s", "19.0 s"),
        (1234.5, "s", "1,230 s"),
        (48.26, "ms", "48.3 ms"),
        (1500.0, "ms", "1.50 s"),
        (43_210.0, "databases/s", "43,200 databases/s"),
        (0.61, "ratio", "0.610"),
    ] {
        assert_eq!(quantity(number, unit), text, "{number} {unit}");
    }
    for (ratio, text) in
        [(0.5, "0.50×"), (0.047, "0.047×"), (3.12, "3.1×"), (5123.0, "5,100×"), (f64::INFINITY, "–")]
    {
        assert_eq!(times(ratio), text);
    }
}

#[test]
fn an_axis_holds_all_its_numbers_and_says_where_its_lines_are() {
    for (numbers, unit, is_log) in [
        (vec![253.0, 145e6], "bytes", true),
        (vec![1.0, 3.0], "s", false),
        (vec![0.0, 0.0], "s", false),
        (vec![0.0, 7.0], "ms", false),
        (vec![800.0, 60_000.0], "KiB", true),
        (vec![1e4, 1e5, 3e5], "ratio", true),
    ] {
        let axis = Axis::over(numbers.iter().copied(), unit);
        assert_eq!(axis.is_log(), is_log, "{numbers:?}");
        let places: Vec<f64> = numbers.iter().map(|number| axis.place(*number)).collect();
        assert!(places.is_sorted() && places.iter().all(|place| (0.0..=100.0).contains(place)), "{places:?}");
        let ticks = axis.ticks(4);
        assert!(ticks.iter().filter(|(_, word)| word.is_some()).count().clamp(2, 5) >= 2, "{ticks:?}");
        assert!(ticks.is_sorted_by(|one, other| one.0 < other.0), "{ticks:?}");
    }
    let axis = Axis::over([800.0, 60_000.0].into_iter(), "KiB");
    let (place, word) = &axis.ticks(4)[0];
    assert_eq!(word.as_deref(), Some("1 MiB"));
    assert!((axis.place(1024.0) - place).abs() < 1e-9);
}

#[test]
fn dates_are_those_of_the_calendar() {
    for (days, date) in [
        (0, (1970, 1, 1)),
        (59, (1970, 3, 1)),
        (10_956, (1999, 12, 31)),
        (11_016, (2000, 2, 29)),
        (11_017, (2000, 3, 1)),
        (20_779, (2026, 11, 22)),
    ] {
        assert_eq!(machine::civil(days), date, "{days}");
    }
}

/// Something of every kind.
fn outcome() -> Outcome {
    let mut figures = Figures::default();
    let mut add = |section, case: &str, side: &str, measure, unit, x, runs: &[f64], note: &str| {
        let (case, side, note) = (case.to_owned(), side.to_owned(), note.to_owned());
        figures.add(Figure { section, case, side, measure, unit, x, runs: runs.to_vec(), note });
    };
    let one_mb = [1e6, 1.001e6, 1e6];
    add("pairs", "behind60", "ours", "wire", "bytes", None, &one_mb, "remote_merge delta");
    add("pairs", "behind60", "ours", "payload", "bytes", None, &[990e3], "remote_merge delta");
    add("pairs", "behind60", "rsync -z", "wire", "bytes", None, &[500e3], "");
    add("pairs", "behind60", "rdiff", "payload", "bytes", None, &[2e6], "<b>&\"");
    add("pairs", "behind60", "ours", "seconds", "s", None, &[3.0, 1.0, 2.0], "");
    add("pairs", "behind60", "rsync -z", "seconds", "s", None, &[3.0, 3.5, 3.0], "");
    add("pairs", "behind60", "ours", "sender resident", "KiB", None, &[9000.0], "");
    add("pairs", "close", "ours", "seconds", "s", None, &[1.0, 2.0, 3.0], "");
    add("pairs", "close", "rsync -z", "seconds", "s", None, &[1.5, 1.1, 1.2], "");
    add("links", "100 Mbit/s: same", "ours", "wire", "bytes", None, &[1000.0], "");
    add("links", "100 Mbit/s: same", "rsync -z", "wire", "bytes", None, &[2000.0], "");
    for (databases, rate) in [(1e4, 50e3), (1e5, 48e3), (3e5, 47e3)] {
        add("scale", "unchanged", "ours", "rate", "databases/s", Some(databases), &[rate, rate + 500.0], "");
        add("scale", "unchanged", "bare walk", "rate", "databases/s", Some(databases), &[rate * 1.5], "");
        add("scale", "unchanged", "Swift", "rate", "databases/s", Some(databases), &[62.0], "");
    }
    for (side, scale) in [("ours", 1.0), ("ours, before", 0.5), ("Swift", 100.0)] {
        for (measure, wait) in
            [("sender's commit p50", 0.1), ("sender's commit p99", 1.0), ("sender's commit longest", 9.0)]
        {
            add("stalls", "ext4 behind", side, measure, "ms", None, &[wait * scale], "");
        }
    }
    figures.could_not("rdiff", "it is not <installed> & \"gone\"");
    Outcome {
        machine: Machine { cores: 2, load: 0.1, facts: vec![("Kernel".to_owned(), "Linux <6>".to_owned())] },
        command: "cargo bench --bench rivals -- --quick --root \"a & b\"".to_owned(),
        quick: true,
        figures,
    }
}

fn parsed(page: &str) -> Document<'_> {
    let options = ParsingOptions { allow_dtd: true, ..ParsingOptions::default() };
    Document::parse_with_options(page, options).unwrap_or_else(|error| panic!("{error}"))
}

fn elements<'a, 'input>(
    document: &'a Document<'input>,
    name: &'a str,
) -> impl Iterator<Item = Node<'a, 'input>> {
    document.descendants().filter(move |node| node.has_tag_name(name))
}

fn of_class<'a, 'input>(node: &Node<'a, 'input>, class: &'a str) -> impl Iterator<Item = Node<'a, 'input>> {
    let has = move |node: &Node| {
        node.attribute("class").is_some_and(|classes| classes.split(' ').any(|one| one == class))
    };
    node.descendants().filter(has)
}

fn cells(row: &Node) -> Vec<String> {
    row.children().filter(Node::is_element).map(|cell| words(&cell)).collect()
}

fn words(node: &Node) -> String {
    node.descendants().filter(Node::is_text).filter_map(|text| text.text()).collect()
}
