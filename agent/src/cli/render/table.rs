//! Plain tables: one line a row, two spaces between columns, no lines drawn.

use std::io::{self, Write};

use super::{Terminal, fit, printable};

const BETWEEN: &str = "  ";

/// A column that shrinks is not cut below this.
const MIN_SHRUNK: usize = 12;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
    /// Left, and cut if the line would be too long for the terminal.
    Shrink,
    /// Left, of this width whatever it holds, so that rows printed later line up.
    Fixed(usize),
}

#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(columns: &[(&'static str, Align)]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    pub(crate) fn push(&mut self, row: impl IntoIterator<Item = String>) {
        let row: Vec<_> = row.into_iter().map(|cell| printable(&cell)).collect();
        debug_assert_eq!(row.len(), self.columns.len());
        self.rows.push(row);
    }

    pub(crate) fn write(&self, out: &mut impl Write, terminal: &Terminal) -> io::Result<()> {
        let widths = self.widths(terminal.width);
        let head: Vec<_> = self.columns.iter().map(|(title, _)| (*title).to_owned()).collect();
        self.write_row(out, &head, &widths)?;
        self.write_rows(out, terminal)
    }

    /// Without the head.
    pub(crate) fn write_rows(&self, out: &mut impl Write, terminal: &Terminal) -> io::Result<()> {
        let widths = self.widths(terminal.width);
        self.rows.iter().try_for_each(|row| self.write_row(out, row, &widths))
    }

    fn write_row(&self, out: &mut impl Write, row: &[String], widths: &[usize]) -> io::Result<()> {
        let cells = row.iter().zip(&self.columns).zip(widths).map(|((cell, (_, align)), &width)| {
            let cell = fit(cell, width);
            if *align == Align::Right { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        let line = cells.collect::<Vec<_>>().join(BETWEEN);
        writeln!(out, "{}", line.trim_end())
    }

    fn widths(&self, line: usize) -> Vec<usize> {
        let natural = |index: usize, title: &str| {
            let cells = self.rows.iter().map(|row| row[index].chars().count());
            cells.chain([title.len()]).max().unwrap_or(0)
        };
        let mut widths: Vec<_> = self
            .columns
            .iter()
            .enumerate()
            .map(|(index, (title, align))| match align {
                Align::Fixed(width) => *width,
                // Rows that come one by one line up if durations take as much as the longest can.
                Align::Right => natural(index, title).max("000 ms".len() + 1),
                Align::Left | Align::Shrink => natural(index, title),
            })
            .collect();
        let between = BETWEEN.len() * widths.len().saturating_sub(1);
        let mut excess = (widths.iter().sum::<usize>() + between).saturating_sub(line);
        while excess > 0 {
            let shrinkable = (0..widths.len()).filter(|&index| self.columns[index].1 == Align::Shrink);
            let Some(widest) =
                shrinkable.filter(|&index| widths[index] > MIN_SHRUNK).max_by_key(|&index| widths[index])
            else {
                break;
            };
            widths[widest] -= 1;
            excess -= 1;
        }
        widths
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(width: usize, rows: &[[&str; 3]]) -> String {
        let mut table = Table::new(&[("POD", Align::Shrink), ("STATE", Align::Left), ("TOOK", Align::Right)]);
        for row in rows {
            table.push(row.map(str::to_owned));
        }
        let mut out = Vec::new();
        table.write(&mut out, &Terminal { width, colours: false, is_terminal: false }).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn columns_line_up() {
        assert_eq!(
            written(80, &[["default/web", "started", "561 ms"], ["kube-system/a", "gone", "40.0 s"]]),
            "POD            STATE       TOOK\n\
             default/web    started   561 ms\n\
             kube-system/a  gone      40.0 s\n"
        );
    }

    #[test]
    fn the_column_that_may_shrink_makes_room() {
        assert_eq!(
            written(34, &[["default/a-pod-with-a-long-name", "started", "561 ms"]]),
            "POD               STATE       TOOK\ndefault/a-pod-w…  started   561 ms\n"
        );
    }
}
