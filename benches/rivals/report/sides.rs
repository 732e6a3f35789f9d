//! Who is drawn how: a colour and a shape for each contender, the same on the whole page.

use crate::figures::Figure;

/// Every contender of the figures, in the order in which they first appear.
pub struct Sides {
    names: Vec<String>,
}

/// How one contender looks.
#[derive(Clone, Copy)]
pub struct Look {
    /// The class that gives the colour, of style.css.
    pub class: &'static str,
    shape: &'static str,
    /// It is drawn as an outline, for it is a variant of another.
    hollow: bool,
}

impl Sides {
    /// Those who appear.
    pub fn of(figures: &[Figure]) -> Sides {
        let mut names: Vec<String> = Vec::new();
        for figure in figures {
            let name = family(&figure.side);
            if !is_ours(name) && !names.iter().any(|known| known == name) {
                names.push(name.to_owned());
            }
        }
        Sides { names }
    }

    /// Ours have one colour and shape, each rival its own; a variant (`ours, before`) looks like the first, but hollow.
    pub fn look(&self, side: &str) -> Look {
        let hollow = family(side) != side;
        if is_ours(side) {
            return Look { class: "ours", shape: CIRCLE, hollow };
        }
        let place = self.names.iter().position(|name| name == family(side)).unwrap_or(0);
        Look { class: RIVALS[place % RIVALS.len()], shape: SHAPES[place % SHAPES.len()], hollow }
    }
}

impl Look {
    /// The mark, around the origin; an outline also where the number means something less.
    pub fn mark(self, is_less: bool) -> String {
        let class = if self.hollow || is_less { "mark hollow" } else { "mark" };
        format!("<path class=\"{class} {}\" d=\"{}\"/>", self.class, self.shape)
    }
}

/// Of a variant, what it is a variant of.
pub fn family(side: &str) -> &str {
    side.split(", ").next().unwrap_or(side)
}

/// Whether it is one of our own ways.
pub fn is_ours(side: &str) -> bool {
    family(side) == "ours"
}

/// Whether it is somebody to be ahead of: not a variant, and not a yardstick that does less than the work.
pub fn is_rival(side: &str) -> bool {
    !is_ours(side) && family(side) == side && !YARDSTICKS.contains(&side)
}

const YARDSTICKS: [&str; 2] = ["bare walk", "nobody"];
const RIVALS: [&str; 7] = ["r1", "r2", "r3", "r4", "r5", "r6", "r7"];
const CIRCLE: &str = "M-5,0a5,5 0 1,0 10,0a5,5 0 1,0 -10,0z";
/// A square, a diamond, two triangles, a cross, a bar, a stroke.
const SHAPES: [&str; 7] = [
    "M-3.6,-3.6h7.2v7.2h-7.2z",
    "M0,-5L5,0L0,5L-5,0z",
    "M0,-4.8L4.8,3.8L-4.8,3.8z",
    "M0,4.8L4.8,-3.8L-4.8,-3.8z",
    "M-1.5,-4.5h3v3h3v3h-3v3h-3v-3h-3v-3h3z",
    "M-5,-1.8h10v3.6h-10z",
    "M-1.8,-5h3.6v10h-3.6z",
];
