//! Results as a table for people, laid out as psql does it.

use std::fmt::Write;

use arrow::array::Array;
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use ruslo_engine::Schema;
use ruslo_repr::text::{TextStyle, write_text};
use unicode_width::UnicodeWidthStr;

/// The rows of `batches` under the names of `schema`, with the number of rows below.
pub(super) fn table(schema: &Schema, batches: &[RecordBatch], style: &TextStyle) -> String {
    let mut rows = vec![];
    for batch in batches {
        rows.extend((0..batch.num_rows()).map(|row| cells(batch, row, style)));
    }
    let names: Vec<&str> = schema
        .columns
        .iter()
        .map(|column| column.name.as_str())
        .collect();
    let right: Vec<bool> = schema
        .columns
        .iter()
        .map(|column| is_number(&column.ty))
        .collect();
    let mut out = grid(&names, &right, &rows);
    let plural = if rows.len() == 1 { "" } else { "s" };
    let _ = writeln!(out, "({} row{plural})", rows.len());
    out
}

/// Names, a line, and rows; columns in `right` are set right.
pub(super) fn grid(names: &[&str], right: &[bool], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        let widest = cells
            .flat_map(|cell| cell.lines())
            .map(UnicodeWidthStr::width)
            .max();
        widest.unwrap_or(0).max(names[column].width())
    };
    let widths: Vec<usize> = (0..names.len()).map(width).collect();
    let mut out = String::new();
    let header = names.iter().zip(&widths).map(|(name, &width)| {
        let left = (width - name.width()) / 2;
        format!(
            " {}{name}{} ",
            " ".repeat(left),
            " ".repeat(width - name.width() - left)
        )
    });
    let _ = writeln!(out, "{}", header.collect::<Vec<_>>().join("|").trim_end());
    let line = widths.iter().map(|&width| "-".repeat(width + 2));
    let _ = writeln!(out, "{}", line.collect::<Vec<_>>().join("+"));
    for row in rows {
        put_row(&mut out, row, &widths, right);
    }
    out
}

/// One row, of as many lines as its tallest cell; `+` marks a line that goes on, as psql's does.
fn put_row(out: &mut String, row: &[String], widths: &[usize], right: &[bool]) {
    let lines: Vec<Vec<&str>> = row.iter().map(|cell| cell.split('\n').collect()).collect();
    let height = lines.iter().map(Vec::len).max().unwrap_or(1);
    for at in 0..height {
        let cells = lines
            .iter()
            .zip(widths)
            .zip(right)
            .map(|((lines, &width), &right)| {
                let text = lines.get(at).copied().unwrap_or_default();
                let space = " ".repeat(width.saturating_sub(text.width()));
                let more = if at + 1 < lines.len() { '+' } else { ' ' };
                match right {
                    true => format!(" {space}{text}{more}"),
                    false => format!(" {text}{space}{more}"),
                }
            });
        let _ = writeln!(out, "{}", cells.collect::<Vec<_>>().join("|").trim_end());
    }
}

fn cells(batch: &RecordBatch, row: usize, style: &TextStyle) -> Vec<String> {
    let columns = batch.columns().iter();
    columns
        .map(|column| {
            let mut text = String::new();
            if column.data_type() != &DataType::Null {
                write_text(column, row, style, &mut text);
            }
            text
        })
        .collect()
}

fn is_number(ty: &DataType) -> bool {
    ty.is_numeric() || matches!(ty, DataType::FixedSizeBinary(16))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_right_and_wide_characters_count_twice() {
        let rows = vec![
            vec!["клик".to_string(), "7".to_string()],
            vec!["点击".to_string(), "1234567".to_string()],
            vec!["two\nlines".to_string(), String::new()],
        ];
        expect_test::expect![[r#"
             event |  count
            -------+---------
             клик  |       7
             点击  | 1234567
             two  +|
             lines |
        "#]]
        .assert_eq(&grid(&["event", "count"], &[false, true], &rows));
    }
}
