//! Plots as inline SVG and a little HTML: rows of marks, curves, and spans of waits.
//!
//! Places along x are percentages and heights are pixels, so that a plot takes whatever width there is and its words keep
//! their size. A mark is the median; the line through it goes from the least to the greatest of the runs.

use std::fmt::Write;

use super::axis::Axis;
use super::sides::{Look, Sides, is_ours};
use super::words::{self, escaped};
use crate::figures::Figure;

/// What one row of a plot of marks shows.
pub struct Dot<'a> {
    /// The figure.
    pub figure: &'a Figure,
    /// How many times ours it is.
    pub times_ours: Option<f64>,
    /// Measured in another way than the rest of the plot, which says how.
    pub apart: bool,
}

/// One row for each contender, under each case.
pub fn dots(cases: &[(String, Vec<Dot>)], sides: &Sides) -> String {
    let figures = || cases.iter().flat_map(|(_, dots)| dots.iter().map(|dot| dot.figure));
    let Some(unit) = figures().next().map(|figure| figure.unit) else { return String::new() };
    let numbers: Vec<f64> = figures().flat_map(|figure| figure.runs.iter().copied()).collect();
    let axis = Axis::over(numbers.iter().copied(), unit);
    let mut html = scale_words(&axis, "row scale");
    let lines = grid(&axis);
    for (case, dots) in cases {
        let meaning =
            words::case_meaning(case).map(|words| format!(" <span>{words}</span>")).unwrap_or_default();
        let _ = write!(html, "<h5>{}{meaning}</h5>", escaped(case));
        for dot in dots {
            let (figure, look) = (dot.figure, sides.look(&dot.figure.side));
            let (least, greatest) = figure.spread();
            let class = if is_ours(&figure.side) { "row is-ours" } else { "row" };
            let _ = write!(
                html,
                "<div class=\"{class}\" title=\"{}\"><span class=\"side\">{}{}</span>\
                 <svg class=\"strip\" height=\"20\" aria-hidden=\"true\">{lines}{}{}</svg>\
                 <span class=\"number\">{}</span><span class=\"times\">{}</span></div>",
                escaped(&told(figure)),
                escaped(&figure.side),
                if dot.apart { "<sup>*</sup>" } else { "" },
                whisker(&axis, least, greatest, look, 10.0),
                at(axis.place(figure.median()), 10.0, &look.mark(dot.apart)),
                words::quantity(figure.median(), unit),
                dot.times_ours.filter(|_| !is_ours(&figure.side)).map(words::times).unwrap_or_default(),
            );
        }
    }
    if cases.iter().any(|(_, dots)| dots.iter().any(|dot| dot.apart)) {
        html += "<p class=\"foot\">* payload only: no link carried it, or none that is counted.</p>";
    }
    html + &scale_words(&axis, "row scale")
}

/// What the runs of a figure came to, in a line.
pub fn told(figure: &Figure) -> String {
    let number = |number| words::quantity(number, figure.unit);
    let (least, greatest) = figure.spread();
    let runs = match figure.runs.len() {
        1 => "one run".to_owned(),
        count => format!("{} to {} in {count} runs", number(least), number(greatest)),
    };
    let note = if figure.note.is_empty() { String::new() } else { format!("; {}", figure.note) };
    format!("{}, {}: {} ({runs}){note}", figure.side, figure.measure, number(figure.median()))
}

/// How a measure grows along x: one curve for each contender.
pub fn curves(figures: &[&Figure], along: &str, sides: &Sides) -> String {
    let Some(first) = figures.first() else { return String::new() };
    let across = Axis::over(figures.iter().filter_map(|figure| figure.x), "ratio");
    let numbers: Vec<f64> = figures.iter().flat_map(|figure| figure.runs.iter().copied()).collect();
    let up = Axis::over(numbers.iter().copied(), first.unit);
    let height = |number: f64| HEIGHT - up.place(number) / 100.0 * HEIGHT;
    let mut svg = String::new();
    for (place, text) in up.ticks(6) {
        let y = HEIGHT - place / 100.0 * HEIGHT;
        let _ = write!(svg, "<line class=\"grid\" x1=\"0\" x2=\"100%\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>");
        if let Some(text) = text {
            let _ = write!(
                svg,
                "<text class=\"tick\" x=\"-8\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>",
                y + 4.0
            );
        }
    }
    let mut stations: Vec<f64> = figures.iter().filter_map(|figure| figure.x).collect();
    stations.sort_by(f64::total_cmp);
    stations.dedup();
    for station in &stations {
        let x = across.place(*station);
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{x:.2}%\" x2=\"{x:.2}%\" y1=\"0\" y2=\"{HEIGHT}\"/>\
             <text class=\"tick\" x=\"{x:.2}%\" y=\"{:.0}\" text-anchor=\"middle\">{}</text>",
            HEIGHT + 18.0,
            words::digits(*station)
        );
    }
    let mut names: Vec<&str> = Vec::new();
    for figure in figures {
        if !names.contains(&figure.side.as_str()) {
            names.push(&figure.side);
        }
    }
    // Ours last, so that it lies on top.
    names.sort_by_key(|name| is_ours(name));
    for name in &names {
        let look = sides.look(name);
        let mut points: Vec<&&Figure> = figures.iter().filter(|figure| figure.side == **name).collect();
        points.sort_by(|one, other| one.x.partial_cmp(&other.x).expect("numbers"));
        let place = |figure: &Figure| (across.place(figure.x.unwrap_or(0.0)), height(figure.median()));
        for pair in points.windows(2) {
            let ((x1, y1), (x2, y2)) = (place(pair[0]), place(pair[1]));
            let _ = write!(
                svg,
                "<line class=\"curve {}\" x1=\"{x1:.2}%\" y1=\"{y1:.1}\" x2=\"{x2:.2}%\" y2=\"{y2:.1}\"/>",
                look.class
            );
        }
        for point in points {
            let (x, y) = place(point);
            let (least, greatest) = point.spread();
            if point.runs.len() > 1 {
                let _ = write!(
                    svg,
                    "<line class=\"whisker {}\" x1=\"{x:.2}%\" x2=\"{x:.2}%\" y1=\"{:.1}\" y2=\"{:.1}\"/>",
                    look.class,
                    height(greatest),
                    height(least)
                );
            }
            let title = format!("<title>{}</title>", escaped(&told(point)));
            svg += &at(x, y, &format!("{title}{}", look.mark(false)));
        }
    }
    names.reverse();
    let logs = match (up.is_log(), across.is_log()) {
        (true, true) => "both axes logarithmic",
        (true, false) => "vertical axis logarithmic",
        (false, true) => "horizontal axis logarithmic",
        (false, false) => "both axes linear",
    };
    format!(
        "{}<svg class=\"curves\" height=\"{HEIGHT}\" role=\"img\">{svg}</svg><p class=\"along\">{along}, {logs}</p>",
        legend(&names, sides)
    )
}

/// From the usual wait to the longest: one row for each contender, under each case.
pub fn spans(cases: &[(String, Vec<[&Figure; 3]>)], sides: &Sides) -> String {
    let figures = || cases.iter().flat_map(|(_, spans)| spans.iter().flatten());
    let Some(unit) = figures().next().map(|figure| figure.unit) else { return String::new() };
    let axis = Axis::over(figures().map(|figure| figure.median()).collect::<Vec<_>>().iter().copied(), unit);
    let lines = grid(&axis);
    let mut html = scale_words(&axis, "row spans scale");
    for (case, spans) in cases {
        let _ = write!(html, "<h5>{}</h5>", escaped(case));
        for span in spans {
            let look = sides.look(&span[0].side);
            let [p50, p99, longest] = span.map(Figure::median);
            let class = if is_ours(&span[0].side) { "row spans is-ours" } else { "row spans" };
            let title = span.map(told).join("; ");
            let _ = write!(
                html,
                "<div class=\"{class}\" title=\"{}\"><span class=\"side\">{}</span>\
                 <svg class=\"strip\" height=\"20\" aria-hidden=\"true\">{lines}{}{}{}{}</svg>\
                 <span class=\"waits\">{} · {} · <b>{}</b></span></div>",
                escaped(&title),
                escaped(&span[0].side),
                whisker(&axis, p50, longest, look, 10.0),
                at(
                    axis.place(p50),
                    10.0,
                    &format!("<circle class=\"mark hollow {}\" r=\"3.5\"/>", look.class)
                ),
                at(axis.place(p99), 10.0, &format!("<circle class=\"mark {}\" r=\"2.5\"/>", look.class)),
                at(axis.place(longest), 10.0, &look.mark(false)),
                words::quantity(p50, unit),
                words::quantity(p99, unit),
                words::quantity(longest, unit),
            );
        }
    }
    html + &scale_words(&axis, "row spans scale")
}

/// Who is which mark.
fn legend(names: &[&str], sides: &Sides) -> String {
    let entry = |name: &&str| format!("<li>{}</li>", legend_entry(name, sides));
    format!("<ul class=\"legend\">{}</ul>", names.iter().map(entry).collect::<String>())
}

/// A contender's mark and name.
pub fn legend_entry(name: &str, sides: &Sides) -> String {
    format!(
        "<svg class=\"key\" width=\"14\" height=\"12\" aria-hidden=\"true\"><g transform=\"translate(7,6)\">{}</g></svg>{}",
        sides.look(name).mark(false),
        escaped(name)
    )
}

/// The line from one number to another, with ends where there is room for them.
fn whisker(axis: &Axis, from: f64, to: f64, look: Look, y: f64) -> String {
    let (from, to) = (axis.place(from), axis.place(to));
    if to - from < 0.2 {
        return String::new();
    }
    let class = look.class;
    let end = |x: f64| {
        format!(
            "<line class=\"whisker {class}\" x1=\"{x:.2}%\" x2=\"{x:.2}%\" y1=\"{}\" y2=\"{}\"/>",
            y - 4.0,
            y + 4.0
        )
    };
    format!(
        "<line class=\"whisker {class}\" x1=\"{from:.2}%\" x2=\"{to:.2}%\" y1=\"{y}\" y2=\"{y}\"/>{}{}",
        end(from),
        end(to)
    )
}

/// Something drawn around a point, so many percent along and so many pixels down.
fn at(percent: f64, y: f64, mark: &str) -> String {
    format!("<svg class=\"point\" x=\"{percent:.2}%\" y=\"{y:.1}\">{mark}</svg>")
}

fn grid(axis: &Axis) -> String {
    let line = |(place, text): (f64, Option<String>)| {
        let class = if text.is_some() { "grid" } else { "grid faint" };
        format!("<line class=\"{class}\" x1=\"{place:.2}%\" x2=\"{place:.2}%\" y1=\"0\" y2=\"20\"/>")
    };
    axis.ticks(TICKS).into_iter().map(line).collect()
}

/// The words of an axis, as a row that stands above and below those of the plot.
fn scale_words(axis: &Axis, class: &str) -> String {
    let word = |(place, text): (f64, Option<String>)| {
        let text = text?;
        let anchor = if place < 1.0 {
            "start"
        } else if place > 99.0 {
            "end"
        } else {
            "middle"
        };
        Some(format!(
            "<text class=\"tick\" x=\"{place:.2}%\" y=\"12\" text-anchor=\"{anchor}\">{text}</text>"
        ))
    };
    let words: String = axis.ticks(TICKS).into_iter().filter_map(word).collect();
    let kind = if axis.is_log() { "log scale" } else { "linear" };
    format!(
        "<div class=\"{class}\"><span class=\"side\">{kind}</span><svg class=\"strip\" height=\"16\" aria-hidden=\"true\">{words}</svg></div>"
    )
}

/// Of a plot of curves, in pixels.
const HEIGHT: f64 = 220.0;
/// As many words as fit along a narrow plot.
const TICKS: usize = 3;
