//! Extents as expressions over named symbols, and their values once the symbols have some.

use super::Fact;
use crate::wire::{Reader, Wire, Writer};
use crate::{PackError, wire_enum};

/// Index into the table of dimensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DimId(pub u32);

impl Wire for DimId {
    fn write(&self, w: &mut Writer) {
        self.0.write(w);
    }
    fn read(r: &mut Reader<'_>) -> Result<Self, PackError> {
        Ok(DimId(u32::read(r)?))
    }
}

impl DimId {
    /// As an index.
    #[must_use]
    pub fn index(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

/// One entry of the table: an integer, or an expression over entries before it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Dim {
    /// A fixed number.
    Value {
        /// The number.
        value: i64,
    },
    /// What a symbol stands for.
    Symbol {
        /// Index into the graph's symbols.
        symbol: usize,
    },
    /// The sum of all terms.
    Sum {
        /// The terms.
        terms: Vec<DimId>,
    },
    /// The product of all factors.
    Product {
        /// The factors.
        factors: Vec<DimId>,
    },
    /// Integer division, rounded towards zero.
    Quotient {
        /// What is divided.
        dividend: DimId,
        /// By what; not 0.
        divisor: u64,
    },
    /// The smallest.
    Min {
        /// Of these; at least one.
        of: Vec<DimId>,
    },
    /// The largest.
    Max {
        /// Of these; at least one.
        of: Vec<DimId>,
    },
    /// The one that is not 1, as in broadcasting; 1 where all are.
    Broadcast {
        /// Of these; at least one.
        of: Vec<DimId>,
    },
}
wire_enum!(Dim {
    0 => Value { value },
    1 => Symbol { symbol },
    2 => Sum { terms },
    3 => Product { factors },
    4 => Quotient { dividend, divisor },
    5 => Min { of },
    6 => Max { of },
    7 => Broadcast { of },
});

impl Dim {
    /// The entries that this one refers to.
    #[must_use]
    pub fn operands(&self) -> &[DimId] {
        match self {
            Dim::Value { .. } | Dim::Symbol { .. } => &[],
            Dim::Quotient { dividend, .. } => std::slice::from_ref(dividend),
            Dim::Sum { terms: of }
            | Dim::Product { factors: of }
            | Dim::Min { of }
            | Dim::Max { of }
            | Dim::Broadcast { of } => of,
        }
    }

    /// Its value, given those of the symbols and of the entries before it. Errors (as text): overflow;
    /// extents that do not broadcast.
    pub(super) fn evaluate(&self, symbols: &[i64], earlier: &[i64]) -> Result<i64, String> {
        let values = self.operands().iter().map(|id| earlier.get(id.index()).copied());
        let values = values.collect::<Option<Vec<i64>>>().ok_or("an entry that is not earlier")?;
        let value = match self {
            Dim::Value { value } => Some(*value),
            Dim::Symbol { symbol } => symbols.get(*symbol).copied(),
            Dim::Sum { .. } => values.iter().try_fold(0i64, |sum, v| sum.checked_add(*v)),
            Dim::Product { .. } => values.iter().try_fold(1i64, |product, v| product.checked_mul(*v)),
            Dim::Quotient { divisor, .. } => {
                let divisor = i64::try_from(*divisor).ok();
                divisor.and_then(|d| values.first()?.checked_div(d))
            }
            Dim::Min { .. } => values.iter().min().copied(),
            Dim::Max { .. } => values.iter().max().copied(),
            Dim::Broadcast { .. } => broadcast(&values),
        };
        value.ok_or_else(|| format!("{self:?} of {values:?} has no value"))
    }
}

fn broadcast(values: &[i64]) -> Option<i64> {
    values.iter().try_fold(1, |found, v| match (found, *v) {
        (1, v) => Some(v),
        (found, v) => (v == 1 || v == found).then_some(found),
    })
}

/// The value of every dimension, for given shapes of the inputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extents {
    pub(super) values: Vec<i64>,
}

impl Extents {
    /// A dimension as an extent; `None` for one that is negative or not there.
    #[must_use]
    pub fn get(&self, id: DimId) -> Option<usize> {
        self.values.get(id.index()).and_then(|v| usize::try_from(*v).ok())
    }

    /// A dimension as a number; `None` for one that is not there.
    #[must_use]
    pub fn value(&self, id: DimId) -> Option<i64> {
        self.values.get(id.index()).copied()
    }

    /// Several dimensions as extents; `None` as [`Extents::get`].
    #[must_use]
    pub fn all(&self, ids: &[DimId]) -> Option<Vec<usize>> {
        ids.iter().map(|id| self.get(*id)).collect()
    }

    /// The shape that a fact has; `None` as [`Extents::get`].
    #[must_use]
    pub fn shape(&self, fact: &Fact) -> Option<Vec<usize>> {
        self.all(&fact.shape)
    }
}
