//! The page that an operator reads: one file with its own style and pictures, that needs no network and no script.

pub mod axis;
mod plot;
mod sides;
mod verdict;
pub mod words;

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use crate::figures::{Figure, Figures};
use crate::machine::Machine;
use plot::Dot;
use sides::{Sides, is_ours};
use words::{capital, escaped, quantity};

/// Everything that came of a benchmark: what the JSON file holds, and the page is made of.
#[derive(Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// Where it ran.
    pub machine: Machine,
    /// How to repeat it.
    pub command: String,
    /// Sizes were too small for the figures to mean much.
    pub quick: bool,
    /// What was measured, and what not.
    pub figures: Figures,
}

/// The page.
pub fn render(outcome: &Outcome) -> String {
    let measured = &outcome.figures.measured;
    let sides = Sides::of(measured);
    let sections = in_order(measured.iter().map(|figure| figure.section));
    let mut body = head(outcome, &sections);
    body += &glance(measured);
    for name in &sections {
        body += &section(name, measured, &sides);
    }
    body += &not_measured(&outcome.figures);
    body += &repeat(outcome);
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\
         <meta name=\"color-scheme\" content=\"light dark\"/>\
         <title>swiftlet beside its rivals</title><style>{STYLE}</style></head><body><main>{body}</main></body></html>\n"
    )
}

fn head(outcome: &Outcome, sections: &[&str]) -> String {
    let machine = &outcome.machine;
    let count = outcome.figures.measured.len();
    let runs = outcome.figures.measured.iter().map(|figure| figure.runs.len()).max().unwrap_or(0);
    let mut html = format!(
        "<header><p class=\"kicker\">swiftlet · cargo bench --bench rivals</p><h1>The agent beside its rivals</h1>\
         <p class=\"lede\">{} figures, measured on this machine, contenders in turn, up to {} a case. The median counts; the \
         spread is drawn. Nothing counts before both ends are proved equal.</p>",
        words::digits(count as f64),
        if runs == 1 { "one run".to_owned() } else { format!("{runs} runs") },
    );
    if outcome.quick {
        html += "<p class=\"warning\">A quick run: sizes are small, and its figures mean little.</p>";
    }
    if machine.load > machine.cores as f64 * BUSY {
        let _ = write!(
            html,
            "<p class=\"warning\">The machine was busy when this began: a load of {} on {} cores. Trust bytes and memory; of \
             time, only ratios.</p>",
            words::digits(machine.load),
            machine.cores
        );
    }
    html += "<dl class=\"machine\">";
    for (what, value) in &machine.facts {
        let _ = write!(html, "<div><dt>{}</dt><dd>{}</dd></div>", escaped(what), escaped(value));
    }
    html += "</dl><nav>";
    for name in sections {
        let _ = write!(html, "<a href=\"#{name}\">{}</a>", capital(name));
    }
    html + "<a href=\"#not-measured\">Not measured</a><a href=\"#repeat\">Repeat it</a></nav></header>"
}

/// Rivals against measures: how often ours was ahead, and by how much. Then every place where a rival was.
fn glance(measured: &[Figure]) -> String {
    let shown: Vec<Figure> = measured.iter().filter(|figure| is_plotted(figure.measure)).cloned().collect();
    let duels = verdict::duels(&shown);
    if duels.is_empty() {
        return String::new();
    }
    let mut html = "<section id=\"glance\"><h2>At a glance</h2><p>How many times ours each rival took, from its best case to \
        its worst, and how often ours was ahead by more than the spread. Above 1× ours was better.</p>"
        .to_owned();
    for section in in_order(duels.iter().map(|duel| duel.theirs.section)) {
        let here = || duels.iter().filter(|duel| duel.theirs.section == section);
        let measures = in_order(here().map(|duel| duel.theirs.measure));
        let rivals = in_order(here().map(|duel| duel.theirs.side.as_str()));
        let _ = write!(
            html,
            "<h3>{}</h3><div class=\"scroll\"><table class=\"glance\"><thead><tr><th></th>",
            capital(section)
        );
        for measure in &measures {
            let unit =
                here().find(|duel| duel.theirs.measure == *measure).map_or("", |duel| duel.theirs.unit);
            let _ = write!(html, "<th>{}</th>", escaped(&words::measure_title(measure, unit)));
        }
        html += "</tr></thead><tbody>";
        for rival in rivals {
            let _ = write!(html, "<tr><th>{}</th>", escaped(rival));
            for measure in &measures {
                let these: Vec<_> = here()
                    .filter(|duel| duel.theirs.measure == *measure && duel.theirs.side == rival)
                    .collect();
                html += &cell(&these);
            }
            html += "</tr>";
        }
        html += "</tbody></table></div>";
    }
    let mut lost: Vec<_> = duels.iter().filter(|duel| duel.is_lost()).collect();
    lost.sort_by(|one, other| one.advantage().total_cmp(&other.advantage()));
    html += "<h3>Where a rival was ahead</h3>";
    if lost.is_empty() {
        return html + "<p>Nowhere, by more than the spread.</p></section>";
    }
    let _ = write!(
        html,
        "<details><summary>In {} of {} comparisons</summary><div class=\"scroll\"><table><thead><tr><th>case</th><th>measure</th><th>rival</th><th class=\"n\">its</th><th class=\"n\">ours</th><th class=\"n\">rival / ours</th></tr></thead><tbody>",
        lost.len(),
        duels.len()
    );
    for duel in lost {
        let _ = write!(
            html,
            "<tr><td>{}: {}</td><td>{}</td><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n worse\">{}</td></tr>",
            capital(duel.theirs.section),
            escaped(&duel.theirs.case),
            escaped(duel.theirs.measure),
            escaped(&duel.theirs.side),
            quantity(duel.theirs.median(), duel.theirs.unit),
            quantity(duel.ours.median(), duel.ours.unit),
            words::times(duel.times_ours()),
        );
    }
    html + "</tbody></table></div></details></section>"
}

fn cell(duels: &[&verdict::Duel]) -> String {
    if duels.is_empty() {
        return "<td>–</td>".to_owned();
    }
    let ahead = duels.iter().filter(|duel| duel.advantage() > 1.0 && !duel.is_close()).count();
    let behind = duels.iter().filter(|duel| duel.is_lost()).count();
    let advantages = || duels.iter().map(|duel| duel.advantage());
    let (least, greatest) = (advantages().fold(f64::INFINITY, f64::min), advantages().fold(0.0, f64::max));
    let class = if behind == 0 {
        "better"
    } else if ahead == 0 {
        "worse"
    } else {
        "mixed"
    };
    let range = match duels.len() {
        1 => words::times(least),
        _ => format!("{} – {}", words::times(least), words::times(greatest)),
    };
    format!("<td class=\"{class}\"><b>{range}</b><br/><span>ahead in {ahead} of {}</span></td>", duels.len())
}

fn section(name: &str, measured: &[Figure], sides: &Sides) -> String {
    let here: Vec<&Figure> = measured.iter().filter(|figure| figure.section == name).collect();
    let (title, prose) = words::section(name);
    let mut html = format!("<section id=\"{name}\"><h2>{title}</h2>");
    for paragraph in prose {
        let _ = write!(html, "<p>{}</p>", escaped(paragraph));
    }
    for group in in_order(here.iter().map(|figure| group(&figure.case).0)) {
        let figures: Vec<&Figure> =
            here.iter().copied().filter(|figure| self::group(&figure.case).0 == group).collect();
        if !group.is_empty() {
            let _ = write!(html, "<h3>{}</h3>", escaped(group));
        }
        html += &matrix(&figures, measured, sides);
        html += "<div class=\"plots\">";
        let (growing, rest): (Vec<&Figure>, Vec<&Figure>) =
            figures.iter().copied().filter(|figure| is_plotted(figure.measure)).partition(|figure| {
                let others = figures.iter().filter(|other| is_same_but_x(figure, other));
                others.map(|other| other.x).any(|x| x != figure.x)
            });
        html += &growth(name, &growing, sides);
        let (waits, rest): (Vec<&Figure>, Vec<&Figure>) =
            rest.into_iter().partition(|figure| quantile(figure.measure).is_some());
        html += &stalls(&waits, sides);
        html += &marks(&rest, measured, sides);
        html += "</div>";
        html += &table(&figures, measured);
    }
    html + "</section>"
}

/// Cases against contenders, seconds and bytes in each cell: what is quoted most.
fn matrix(figures: &[&Figure], measured: &[Figure], sides: &Sides) -> String {
    let of = |case: &str, side: &str, measures: &[&str]| {
        measures.iter().find_map(|measure| {
            let is_it = |figure: &&&Figure| {
                figure.case == case && figure.side == side && figure.measure == *measure && figure.x.is_none()
            };
            figures.iter().copied().find(|figure| is_it(&figure))
        })
    };
    let is_whole = |figure: &&&Figure| of(&figure.case, &figure.side, &BYTES).is_some();
    let timed: Vec<&Figure> = figures
        .iter()
        .copied()
        .filter(|figure| figure.measure == "seconds")
        .filter(|figure| is_whole(&figure))
        .collect();
    let cases = in_order(timed.iter().map(|figure| figure.case.as_str()));
    let names = in_order(timed.iter().map(|figure| figure.side.as_str()));
    if names.len() < 2 {
        return String::new();
    }
    let mut html = "<div class=\"scroll\"><table class=\"matrix\"><thead><tr><th></th>".to_owned();
    for name in &names {
        let class = if is_ours(name) { " class=\"is-ours\"" } else { "" };
        let _ = write!(html, "<th{class}>{}</th>", plot::legend_entry(name, sides));
    }
    html += "</tr></thead><tbody>";
    for case in cases {
        let case_name = group(case).1;
        let meaning = words::case_meaning(case_name).unwrap_or_default();
        let _ = write!(html, "<tr><th>{}<br/><span>{meaning}</span></th>", escaped(case_name));
        for name in &names {
            let class = if is_ours(name) { " class=\"is-ours\"" } else { "" };
            let line = |figure: Option<&Figure>| {
                let Some(figure) = figure else { return "–".to_owned() };
                let ours =
                    verdict::ours_for(figure, measured).or_else(|| of(case, "ours", &[figure.measure]));
                let times = ours.filter(|_| !is_ours(name)).map(|ours| figure.median() / ours.median());
                let times =
                    times.map(|times| format!(" <span>{}</span>", words::times(times))).unwrap_or_default();
                format!("{}{times}", quantity(figure.median(), figure.unit))
            };
            let cell = format!("{}<br/>{}", line(of(case, name, &["seconds"])), line(of(case, name, &BYTES)));
            let _ = write!(html, "<td{class}>{}</td>", if cell == "–<br/>–" { "–" } else { &cell });
        }
        html += "</tr>";
    }
    html + "</tbody></table></div>"
}

/// A plot of marks for each measure; where bytes were counted with headers, those who have only payload stand there too.
fn marks<'a>(figures: &[&'a Figure], measured: &[Figure], sides: &Sides) -> String {
    let has_wire = figures.iter().any(|figure| figure.measure == "wire");
    let mut html = String::new();
    for measure in in_order(figures.iter().map(|figure| figure.measure)) {
        if measure == "payload" && has_wire {
            continue;
        }
        let stands_in = |figure: &Figure| {
            let same = |other: &&&Figure| {
                other.measure == "wire" && other.case == figure.case && other.side == figure.side
            };
            measure == "wire" && figure.measure == "payload" && !figures.iter().any(|other| same(&other))
        };
        let these: Vec<&Figure> =
            figures.iter().copied().filter(|figure| figure.measure == measure || stands_in(figure)).collect();
        let cases = in_order(these.iter().map(|figure| figure.case.as_str()));
        let dots: Vec<(String, Vec<Dot>)> = cases
            .into_iter()
            .map(|case| {
                let of_case = these.iter().copied().filter(|figure| figure.case == case);
                let dot = |figure: &'a Figure| Dot {
                    figure,
                    times_ours: verdict::ours_for(figure, measured)
                        .map(|ours| figure.median() / ours.median()),
                    apart: figure.measure != measure,
                };
                let dots = of_case.map(dot).collect();
                (group(case).1.to_owned(), dots)
            })
            .collect();
        html += &framed(measure, these[0].unit, &plot::dots(&dots, sides));
    }
    html
}

/// For each measure, curves along x; one plot for each case.
fn growth(section: &str, figures: &[&Figure], sides: &Sides) -> String {
    let mut html = String::new();
    for (case, measure) in in_order(figures.iter().map(|figure| (figure.case.as_str(), figure.measure))) {
        let these: Vec<&Figure> = figures
            .iter()
            .copied()
            .filter(|figure| figure.case == case && figure.measure == measure)
            .collect();
        let plot = plot::curves(&these, words::axis(section), sides);
        let (case, measured) = (capital(group(case).1), words::measure_title(measure, these[0].unit));
        let title = if case == measured { case } else { format!("{case}: {measured}") };
        html += &frame(&title, &note(measure, these[0].unit), &plot);
    }
    html
}

/// Waits from the usual to the longest; one plot for each kind of wait.
fn stalls(figures: &[&Figure], sides: &Sides) -> String {
    let mut html = String::new();
    for subject in in_order(figures.iter().filter_map(|figure| Some(quantile(figure.measure)?.0))) {
        let of = |case: &str, side: &str, which: usize| {
            figures.iter().copied().find(|figure| {
                figure.case == case
                    && figure.side == side
                    && quantile(figure.measure) == Some((subject, which))
            })
        };
        let cases = in_order(figures.iter().map(|figure| figure.case.as_str()));
        let rows: Vec<(String, Vec<[&Figure; 3]>)> = cases
            .into_iter()
            .map(|case| {
                let names = in_order(
                    figures.iter().filter(|figure| figure.case == case).map(|figure| figure.side.as_str()),
                );
                let span = |side: &str| Some([of(case, side, 0)?, of(case, side, 1)?, of(case, side, 2)?]);
                (group(case).1.to_owned(), names.into_iter().filter_map(span).collect())
            })
            .filter(|(_, spans): &(String, Vec<_>)| !spans.is_empty())
            .collect();
        let title = format!("Waits: {}", if subject.is_empty() { "all" } else { subject });
        html += &frame(&title, "p50 · p99 · longest; less is better", &plot::spans(&rows, sides));
    }
    html
}

/// A measure of waits: whose they are, and which of the three it is.
fn quantile(measure: &str) -> Option<(&str, usize)> {
    let measure = measure.strip_suffix(" wait").unwrap_or(measure);
    let found = QUANTILES.iter().position(|name| measure.ends_with(name))?;
    Some((measure[..measure.len() - QUANTILES[found].len()].trim_end(), found))
}

fn framed(measure: &str, unit: &str, plot: &str) -> String {
    frame(&words::measure_title(measure, unit), &note(measure, unit), plot)
}

fn note(measure: &str, unit: &str) -> String {
    let direction = if words::more_is_better(unit) { "more is better" } else { "less is better" };
    match words::measure_note(measure) {
        "" => direction.to_owned(),
        words => format!("{words}; {direction}"),
    }
}

fn frame(title: &str, note: &str, plot: &str) -> String {
    format!(
        "<figure><figcaption><h4>{}</h4><p>{}</p></figcaption>{plot}</figure>",
        escaped(title),
        escaped(note)
    )
}

/// Every number of a group, each with its spread and beside ours.
fn table(figures: &[&Figure], measured: &[Figure]) -> String {
    let mut html = format!(
        "<details class=\"all\"><summary>All {} figures in a table</summary><div class=\"scroll\"><table><thead><tr><th>case</th><th>contender</th><th>measure</th><th class=\"n\">median</th><th class=\"n\">least</th><th class=\"n\">greatest</th><th class=\"n\">runs</th><th class=\"n\">/ ours</th><th>note</th></tr></thead><tbody>",
        figures.len()
    );
    for figure in figures {
        let ours = verdict::ours_for(figure, measured);
        let times = ours
            .filter(|_| !is_ours(&figure.side))
            .map(|ours| words::times(figure.median() / ours.median()))
            .unwrap_or_default();
        let at = figure.x.map(|x| format!(" at {}", words::digits(x))).unwrap_or_default();
        let (least, greatest) = figure.spread();
        let class = if is_ours(&figure.side) { " class=\"is-ours\"" } else { "" };
        let _ = write!(
            html,
            "<tr{class}><td>{}{at}</td><td>{}</td><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{times}</td><td>{}</td></tr>",
            escaped(&figure.case),
            escaped(&figure.side),
            escaped(figure.measure),
            quantity(figure.median(), figure.unit),
            quantity(least, figure.unit),
            quantity(greatest, figure.unit),
            figure.runs.len(),
            escaped(&figure.note),
        );
    }
    html + "</tbody></table></div></details>"
}

fn not_measured(figures: &Figures) -> String {
    let mut html = "<section id=\"not-measured\"><h2>What this machine could not measure</h2>".to_owned();
    if figures.not_measured.is_empty() {
        return html + "<p>Nothing that was asked for was left out.</p></section>";
    }
    html += "<dl class=\"missing\">";
    for (what, why) in &figures.not_measured {
        let _ = write!(html, "<div><dt>{}</dt><dd>{}</dd></div>", escaped(what), escaped(why));
    }
    html + "</dl></section>"
}

fn repeat(outcome: &Outcome) -> String {
    format!(
        "<section id=\"repeat\"><h2>Repeat it</h2><pre>{}</pre>\
         <p>Run it when the machine has nothing else to do. <code>--root DIR</code> names the disk to be measured, \
         <code>--cold</code> reads everything from it, <code>--runs N</code> narrows the spread. The JSON file beside this page has every \
         single run.</p>\
         <p>How to read it: a mark is the median, the line through it runs from the least to the greatest of the runs. A ratio beside a \
         rival is its figure divided by ours of the same case in the same run. Absolute figures drift with the machine and the hour; \
         only what was measured together may be compared.</p></section>",
        escaped(&outcome.command)
    )
}

/// Resident memory counts pages that the kernel may take back: it stands in the tables only.
fn is_plotted(measure: &str) -> bool {
    !measure.ends_with("resident")
}

/// `GROUP: CASE`, where a case has a group.
fn group(case: &str) -> (&str, &str) {
    case.split_once(": ").unwrap_or(("", case))
}

fn is_same_but_x(one: &Figure, other: &Figure) -> bool {
    (&one.case, &one.side, one.measure) == (&other.case, &other.side, other.measure)
}

/// Each once, in the order in which they first come.
fn in_order<T: PartialEq>(all: impl Iterator<Item = T>) -> Vec<T> {
    let mut found = Vec::new();
    for one in all {
        if !found.contains(&one) {
            found.push(one);
        }
    }
    found
}

/// What a contender put on the link; the second where the first cannot be counted.
const BYTES: [&str; 2] = ["wire", "payload"];
const STYLE: &str = include_str!("style.css");
/// The ends of the names of waits, from the usual to the longest.
const QUANTILES: [&str; 3] = ["p50", "p99", "longest"];
/// With so much of its processors at work already, a machine is no place to measure time.
const BUSY: f64 = 0.35;
