//! The medians for people who read a terminal.

use crate::figures::Figure;
use crate::report::words;

/// Prints figures: a table for each case, a line for each contender, a column for each measure.
pub fn print(figures: &[Figure]) {
    let mut cases: Vec<(&str, Option<f64>)> = Vec::new();
    for figure in figures {
        let case = (figure.case.as_str(), figure.x);
        if !cases.contains(&case) {
            cases.push(case);
        }
    }
    for (case, x) in cases {
        let here: Vec<&Figure> =
            figures.iter().filter(|figure| figure.case == case && figure.x == x).collect();
        let (mut sides, mut measures): (Vec<&str>, Vec<&str>) = Default::default();
        for figure in &here {
            if !sides.contains(&figure.side.as_str()) {
                sides.push(&figure.side);
            }
            if !measures.contains(&figure.measure) {
                measures.push(figure.measure);
            }
        }
        let at = x.map(|x| format!(" at {}", words::digits(x))).unwrap_or_default();
        let heads: String =
            measures.iter().map(|measure| format!(" {measure:>width$}", width = width(measure))).collect();
        println!("\n{:<26}{heads}", format!("{}: {case}{at}", here[0].section));
        for side in sides {
            let of_side = || here.iter().filter(|figure| figure.side == side);
            let cell = |measure: &&str| {
                let found = of_side().find(|figure| figure.measure == *measure);
                let text = found.map(|figure| words::quantity(figure.median(), figure.unit));
                format!(" {:>width$}", text.unwrap_or_default(), width = width(measure))
            };
            let cells: String = measures.iter().map(cell).collect();
            let note = of_side().map(|figure| figure.note.as_str()).find(|note| !note.is_empty());
            println!("{side:<26}{cells}  {}", note.unwrap_or_default());
        }
    }
}

fn width(measure: &str) -> usize {
    measure.len().max(10)
}
