//! A pattern searches; the compiler's match whole strings. Anchors become what stands around.

use super::parse::Tree;

/// Variants that alternatives with anchors make.
const VARIANTS_MAX: usize = 64;

/// A part of a pattern without anchors, and where it had them.
#[derive(Clone)]
struct Variant {
    text: String,
    start: bool,
    end: bool,
}

/// Patterns of whole strings that all must match.
pub(super) fn whole(tree: Tree) -> Result<Vec<String>, String> {
    let (tree, ahead) = take_ahead(tree);
    let mut patterns = vec![pattern(&tree)?];
    for tree in ahead {
        // A look-ahead at the start is a pattern of its own.
        patterns.push(pattern(&Tree::Seq(vec![Tree::Start, tree]))?);
    }
    Ok(patterns)
}

/// Look-aheads directly behind `^`.
fn take_ahead(tree: Tree) -> (Tree, Vec<Tree>) {
    let mut ahead = Vec::new();
    let Tree::Seq(parts) = tree else { return (tree, ahead) };
    let mut kept = Vec::with_capacity(parts.len());
    for part in parts {
        let leading = matches!(kept.as_slice(), [Tree::Start]);
        match part {
            Tree::Ahead(inner) if leading => ahead.push(*inner),
            part => kept.push(part),
        }
    }
    (Tree::Seq(kept), ahead)
}

fn pattern(tree: &Tree) -> Result<String, String> {
    let variants = variants(tree)?;
    let around = |variant: &Variant| {
        let open = |anchored: bool| if anchored { "" } else { "(?s:.)*" };
        format!("{}{}{}", open(variant.start), variant.text, open(variant.end))
    };
    let all: Vec<String> = variants.iter().map(around).collect();
    Ok(format!("^(?:{})$", all.join("|")))
}

fn has_anchor(tree: &Tree) -> bool {
    match tree {
        Tree::One(_) => false,
        Tree::Start | Tree::End | Tree::Ahead(_) => true,
        Tree::Seq(parts) | Tree::Alt(parts) => parts.iter().any(has_anchor),
        Tree::Repeat(part, ..) => has_anchor(part),
    }
}

fn variants(tree: &Tree) -> Result<Vec<Variant>, String> {
    let plain = |text: String| Variant { text, start: false, end: false };
    if !has_anchor(tree) {
        return Ok(vec![plain(text(tree))]);
    }
    match tree {
        Tree::Start => Ok(vec![Variant { text: String::new(), start: true, end: false }]),
        Tree::End => Ok(vec![Variant { text: String::new(), start: false, end: true }]),
        Tree::Alt(parts) => {
            let mut all = Vec::new();
            for part in parts {
                all.extend(variants(part)?);
            }
            bounded(all)
        }
        Tree::Seq(parts) => {
            let mut all = vec![plain(String::new())];
            for (at, part) in parts.iter().enumerate() {
                let next = variants(part)?;
                let first = parts[..at].iter().all(is_start);
                let last = parts[at + 1..].iter().all(is_end);
                let misplaced =
                    next.iter().any(|next| (next.start && !first) || (next.end && !last));
                if misplaced {
                    return Err("has an anchor inside, which cannot be enforced".to_owned());
                }
                let join = |before: &Variant, next: &Variant| Variant {
                    text: format!("{}{}", before.text, next.text),
                    start: before.start || next.start,
                    end: before.end || next.end,
                };
                all =
                    all.iter().flat_map(|it| next.iter().map(move |next| join(it, next))).collect();
                all = bounded(all)?;
            }
            Ok(all)
        }
        Tree::Repeat(..) => Err("has an anchor that is repeated".to_owned()),
        Tree::Ahead(_) => Err("has a look-ahead that is not at its start".to_owned()),
        Tree::One(_) => Ok(vec![plain(text(tree))]),
    }
}

fn bounded(all: Vec<Variant>) -> Result<Vec<Variant>, String> {
    if all.len() > VARIANTS_MAX {
        return Err("has too many anchors".to_owned());
    }
    Ok(all)
}

fn is_start(tree: &Tree) -> bool {
    matches!(tree, Tree::Start) || matches!(tree, Tree::Seq(parts) if parts.iter().all(is_start))
}

fn is_end(tree: &Tree) -> bool {
    matches!(tree, Tree::End) || matches!(tree, Tree::Seq(parts) if parts.iter().all(is_end))
}

/// Without anchors, in the compiler's syntax.
fn text(tree: &Tree) -> String {
    match tree {
        Tree::One(one) => one.clone(),
        Tree::Seq(parts) => parts.iter().map(text).collect(),
        // Nothing matches.
        Tree::Alt(parts) if parts.is_empty() => "[a&&b]".to_owned(),
        Tree::Alt(parts) => {
            let parts: Vec<String> = parts.iter().map(text).collect();
            format!("(?:{})", parts.join("|"))
        }
        Tree::Repeat(part, min, max) => {
            let max = max.map_or_else(String::new, |max| max.to_string());
            format!("(?:{}){{{min},{max}}}", text(part))
        }
        Tree::Start | Tree::End | Tree::Ahead(_) => String::new(),
    }
}
