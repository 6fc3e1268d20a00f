//! Numbers of a shape: bounds, steps, and single values.
//!
//! The compiler reads every number as a 64-bit float and writes bounds as a regular expression
//! over decimal digits. Bounds that a float cannot hold are moved inwards to one that it can:
//! fewer numbers can be written, and all that can are allowed.

use serde_json::{Number as Json, Value, json};

use super::at_most;

/// The largest float below 2^63: bounds of integers end here, in both directions.
const INTEGER_MAX: f64 = 9_223_372_036_854_774_784.0;
/// The same where the other bound is missing: the compiler needs as many nines in an i64.
const ONE_SIDED_MAX: f64 = 999_999_999_999_999_872.0;
/// Above it floats are no longer exact to the integer; the compiler cuts bounds at the point.
const FRACTION_MAX: f64 = 9_007_199_254_740_992.0;
/// Digits behind the point of a bound.
const DECIMALS_MAX: u32 = 20;
/// `multipleOf`, without its point: one state of the compiler's automaton for each remainder.
const STEP_MAX: i128 = 10_000;
/// Digits behind the point of `multipleOf`. The compiler counts remainders in 32 bits.
const STEP_DECIMALS_MAX: u32 = 4;

/// Numbers.
#[derive(Debug, Clone, Default)]
pub(super) struct Number {
    pub(super) integer: bool,
    pub(super) min: Option<Bound>,
    pub(super) max: Option<Bound>,
    pub(super) step: Option<Decimal>,
    /// These only, sorted.
    pub(super) only: Option<Vec<f64>>,
}

/// An end of an interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Bound {
    pub(super) value: f64,
    /// The value itself is outside.
    pub(super) open: bool,
}

/// `digits` tenth to the power of `decimals`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Decimal {
    digits: i128,
    decimals: u32,
}

impl Decimal {
    /// The shortest decimal that reads as this float.
    fn of(value: f64) -> Option<Self> {
        let text = format!("{value:e}");
        let (number, exponent) = text.split_once('e')?;
        let point = number.split_once('.').map_or(0, |(_, fraction)| fraction.len());
        let digits: i128 = number.replace('.', "").parse().ok()?;
        let exponent = exponent.parse::<i64>().ok()? - i64::try_from(point).ok()?;
        if exponent >= 0 {
            let scale = 10_i128.checked_pow(u32::try_from(exponent).ok()?)?;
            return Some(Self { digits: digits.checked_mul(scale)?, decimals: 0 });
        }
        Some(Self { digits, decimals: u32::try_from(-exponent).ok()? })
    }

    /// Both with as many digits behind the point.
    fn align(self, other: Self) -> Option<(i128, i128)> {
        let most = self.decimals.max(other.decimals);
        let scale = |of: Self| of.digits.checked_mul(10_i128.checked_pow(most - of.decimals)?);
        Some((scale(self)?, scale(other)?))
    }

    fn divides(self, value: f64) -> bool {
        let aligned = Self::of(value).and_then(|value| self.align(value));
        aligned.is_some_and(|(step, value)| value % step == 0)
    }

    /// The least common multiple.
    fn and(self, other: Self) -> Option<Self> {
        let (a, b) = self.align(other)?;
        let (mut x, mut y) = (a, b);
        while y != 0 {
            (x, y) = (y, x % y);
        }
        let decimals = self.decimals.max(other.decimals);
        Self { digits: (a / x).checked_mul(b)?, decimals }.checked().ok()
    }

    fn checked(mut self) -> Result<Self, String> {
        while self.decimals > 0 && self.digits % 10 == 0 {
            self = Self { digits: self.digits / 10, decimals: self.decimals - 1 };
        }
        if self.digits > STEP_MAX || self.decimals > STEP_DECIMALS_MAX {
            return Err(at_most(format_args!("{STEP_MAX}, and {STEP_DECIMALS_MAX} decimals")));
        }
        Ok(self)
    }

    fn value(self) -> f64 {
        // Both are exact, and division rounds correctly: the float that the decimal reads as.
        (self.digits as f64) / 10_f64.powi(self.decimals.cast_signed())
    }

    /// As the compiler finds digits and decimals: ten times the float until it is whole.
    fn survives(self) -> bool {
        let (mut value, mut decimals) = (self.value(), 0);
        while value.fract() != 0.0 && decimals <= self.decimals {
            value *= 10.0;
            decimals += 1;
        }
        value == self.digits as f64 && decimals == self.decimals
    }
}

/// Reads `multipleOf`.
pub(super) fn step(value: &Json) -> Result<Decimal, String> {
    let value = value.as_f64().filter(|value| *value > 0.0);
    let Some(value) = value else { return Err("must be above 0".to_owned()) };
    let step = Decimal::of(value).ok_or_else(|| at_most(STEP_MAX))?.checked()?;
    if step.survives() { Ok(step) } else { Err("has too many digits to be held to".to_owned()) }
}

/// Reads a bound, moved inwards to a float: up where it is a lower one.
pub(super) fn bound(value: &Json, lower: bool) -> Option<f64> {
    let float = value.as_f64()?;
    let exact = value.as_i64().map(i128::from).or(value.as_u64().map(i128::from));
    let Some(exact) = exact else { return Some(float) };
    let read = float as i128;
    Some(match lower {
        true if read < exact => float.next_up(),
        false if read > exact => float.next_down(),
        _ => float,
    })
}

/// Reads a single value. None: a float does not hold it.
pub(super) fn exact(value: &Json) -> Option<f64> {
    let float = value.as_f64()?;
    let integer = value.as_i64().map(i128::from).or(value.as_u64().map(i128::from));
    let holds =
        integer.is_none_or(|integer| float as i128 == integer && float.abs() <= INTEGER_MAX);
    // -0 is 0.
    (holds && float.is_finite()).then_some(float + 0.0)
}

impl Bound {
    fn excludes_below(self, value: f64) -> bool {
        value < self.value || (self.open && value == self.value)
    }

    fn excludes_above(self, value: f64) -> bool {
        value > self.value || (self.open && value == self.value)
    }
}

impl Number {
    pub(super) fn is_any(&self) -> bool {
        let Self { integer, min, max, step, only } = self;
        !integer && min.is_none() && max.is_none() && step.is_none() && only.is_none()
    }

    /// Sets a lower bound, unless there is a higher one.
    pub(super) fn raise(&mut self, bound: Bound) {
        let lower =
            |min: Bound| bound.excludes_below(min.value) && !min.excludes_below(bound.value);
        if self.min.is_none_or(lower) {
            self.min = Some(bound);
        }
    }

    /// Sets an upper bound, unless there is a lower one.
    pub(super) fn lower(&mut self, bound: Bound) {
        let higher =
            |max: Bound| bound.excludes_above(max.value) && !max.excludes_above(bound.value);
        if self.max.is_none_or(higher) {
            self.max = Some(bound);
        }
    }

    /// By everything but `only`.
    fn allows(&self, value: f64) -> bool {
        (!self.integer || value.fract() == 0.0)
            && self.min.is_none_or(|min| !min.excludes_below(value))
            && self.max.is_none_or(|max| !max.excludes_above(value))
            && self.step.is_none_or(|step| step.divides(value))
    }

    /// Numbers that are both. None: their steps have no common multiple that can be held to.
    pub(super) fn meet(&self, other: &Self) -> Option<Self> {
        let mut met = self.clone();
        met.integer |= other.integer;
        if let Some(min) = other.min {
            met.raise(min);
        }
        if let Some(max) = other.max {
            met.lower(max);
        }
        met.step = match (self.step, other.step) {
            (Some(mine), Some(theirs)) => Some(mine.and(theirs)?),
            (mine, theirs) => mine.or(theirs),
        };
        met.only = match (met.only.take(), &other.only) {
            (Some(mut mine), Some(theirs)) => {
                mine.retain(|value| theirs.binary_search_by(|it| it.total_cmp(value)).is_ok());
                Some(mine)
            }
            (mine, theirs) => mine.or_else(|| theirs.clone()),
        };
        if let Some(mut only) = met.only.take() {
            only.retain(|value| met.allows(*value));
            met.only = Some(only);
        }
        Some(met)
    }

    pub(super) fn is_empty(&self) -> bool {
        if let Some(only) = &self.only {
            return only.is_empty();
        }
        let (Some(min), Some(max)) = (self.min, self.max) else { return false };
        if min.value > max.value || (min.value == max.value && (min.open || max.open)) {
            return true;
        }
        if self.integer && self.step.is_none() {
            let (low, high) = (whole_above(min), whole_below(max));
            return low > high;
        }
        let mut step = self.step;
        if self.integer {
            let one = Decimal { digits: 1, decimals: 0 };
            step = step.and_then(|step| step.and(one));
        }
        step.is_some_and(|step| no_multiple(step, min, max).unwrap_or(false))
    }

    /// In the compiler's keywords.
    ///
    /// # Errors
    /// Bounds that it cannot take.
    pub(super) fn write(&self) -> Result<Value, String> {
        if let Some(only) = &self.only {
            let only: Vec<Value> = only
                .iter()
                .filter(|value| self.allows(**value))
                .map(|value| plain(*value))
                .collect();
            return Ok(json!({"enum": only}));
        }
        let mut written = json!({"type": if self.integer { "integer" } else { "number" }});
        let (min, max) = if self.integer { self.whole_bounds()? } else { self.bounds()? };
        let mut set = |name: &str, value: Value| written[name] = value;
        if let Some(min) = min {
            set(if min.open { "exclusiveMinimum" } else { "minimum" }, plain(min.value));
        }
        if let Some(max) = max {
            set(if max.open { "exclusiveMaximum" } else { "maximum" }, plain(max.value));
        }
        if let Some(step) = self.step {
            set("multipleOf", plain(step.value()));
        }
        Ok(written)
    }

    /// Closed, and no larger than the compiler takes.
    fn whole_bounds(&self) -> Result<(Option<Bound>, Option<Bound>), String> {
        let both = self.min.is_some() && self.max.is_some();
        let most = if both { INTEGER_MAX } else { ONE_SIDED_MAX };
        let low = self.min.map(|min| whole_above(min).max(-most));
        let high = self.max.map(|max| whole_below(max).min(most));
        if low.is_some_and(|low| low > most) || high.is_some_and(|high| high < -most) {
            return Err(format!("has a bound of integers that {}", at_most(most)));
        }
        let closed = |value: f64| Bound { value, open: false };
        Ok((low.map(closed), high.map(closed)))
    }

    fn bounds(&self) -> Result<(Option<Bound>, Option<Bound>), String> {
        let most = FRACTION_MAX;
        let beyond = |bound: Option<Bound>, sign: f64| {
            bound.map(|it| {
                let far = it.value * sign > most;
                if far { Bound { value: most * sign, open: false } } else { it }
            })
        };
        let (min, max) = (beyond(self.min, -1.0), beyond(self.max, 1.0));
        for bound in [min, max].into_iter().flatten() {
            let decimals = Decimal::of(bound.value).map(|decimal| decimal.decimals);
            if bound.value.abs() > most || decimals.is_none_or(|it| it > DECIMALS_MAX) {
                let most = format_args!("2^53, and {DECIMALS_MAX} decimals");
                return Err(format!("has a bound of numbers that {}", at_most(most)));
            }
        }
        let (Some(low), Some(high)) = (min, max) else { return Ok((min, max)) };
        // The compiler forgets that the end nearer to zero is open where it is whole and the other
        // end lies before the next whole number. It is moved by very little instead.
        if low.value >= 0.0 && low.open && close(low.value, high.value) {
            return Ok((Some(moved(low.value, high.value)?), max));
        }
        if high.value <= 0.0 && high.open && close(-high.value, -low.value) {
            let Bound { value, open } = moved(-high.value, -low.value)?;
            return Ok((min, Some(Bound { value: -value, open })));
        }
        Ok((min, max))
    }
}

/// `near` is whole, and `far` lies before the next whole number.
fn close(near: f64, far: f64) -> bool {
    near.fract() == 0.0 && far.trunc() == near
}

/// A closed bound just above `near`.
fn moved(near: f64, far: f64) -> Result<Bound, String> {
    let found = (1..=12).rev().map(|decimals| near + 10_f64.powi(-decimals));
    let found = found.into_iter().find(|value| *value > near && *value < far);
    let value = found.ok_or("allows too few numbers to be held to")?;
    Ok(Bound { value, open: false })
}

fn whole_above(bound: Bound) -> f64 {
    let whole = bound.value.ceil();
    if bound.open && whole == bound.value { (whole + 1.0).max(whole.next_up()) } else { whole }
}

fn whole_below(bound: Bound) -> f64 {
    let whole = bound.value.floor();
    if bound.open && whole == bound.value { (whole - 1.0).min(whole.next_down()) } else { whole }
}

/// Whether no multiple of `step` lies between. None: too large to tell.
fn no_multiple(step: Decimal, min: Bound, max: Bound) -> Option<bool> {
    let (low, high) = (Decimal::of(min.value)?, Decimal::of(max.value)?);
    let most = step.decimals.max(low.decimals).max(high.decimals);
    let zero = Decimal { digits: 0, decimals: most };
    let (step, _) = step.align(zero)?;
    let (low, _) = low.align(zero)?;
    let (high, _) = high.align(zero)?;
    let mut first = low.div_euclid(step).checked_mul(step)?;
    if first < low || (first == low && min.open) {
        first = first.checked_add(step)?;
    }
    Some(first > high || (first == high && max.open))
}

/// Integers without a point: the compiler takes a number with one for a fraction.
fn plain(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() <= INTEGER_MAX {
        return json!(value as i64);
    }
    json!(value)
}
