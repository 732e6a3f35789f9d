//! Which trees a database has, and what is asked of each.

use rusqlite::Connection;

use super::super::fault::Fault;

/// The trees of a database.
pub(super) struct Plan {
    pub(super) trees: Vec<Tree>,
    /// Tables that are left to SQLite.
    pub(super) small_tables: Vec<String>,
}

/// One table or index.
pub(super) struct Tree {
    pub(super) root: u32,
    pub(super) kind: Kind,
    /// Of the large table: what its records hold.
    pub(super) columns: Option<Vec<Column>>,
    /// It is an index of the large table, and must have as many entries as that has rows.
    pub(super) must_match: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Table,
    Index,
}

/// What a column may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Column {
    /// Stands for the row's number, and is stored as nothing.
    RowId,
    Text,
    Number,
}

impl Plan {
    /// `None` if there is anything in the schema that container databases do not have.
    pub(super) fn of(conn: &Connection) -> Result<Option<Plan>, Fault> {
        let Some(columns) = columns(conn)? else { return Ok(None) };
        let schema = Tree { root: 1, kind: Kind::Table, columns: None, must_match: false };
        let mut plan = Plan { trees: vec![schema], small_tables: vec!["sqlite_schema".to_owned()] };
        let mut statement = conn.prepare(
            "SELECT type, name, tbl_name, rootpage, coalesce(upper(sql), '') FROM sqlite_schema
                 WHERE type NOT IN ('view', 'trigger')",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let [kind, name, of, sql] = [0, 1, 2, 4].map(|column| row.get::<_, String>(column));
            let (kind, name, of, sql) = (kind?, name?, of?, sql?);
            let Ok(root @ 2..) = u32::try_from(row.get::<_, i64>(3)?) else { return Ok(None) };
            let is_large = of == LARGE_TABLE;
            match kind.as_str() {
                "table" if UNUSUAL.iter().any(|word| sql.contains(word)) => return Ok(None),
                "table" => {
                    let columns = is_large.then(|| columns.clone());
                    plan.trees.push(Tree { root, kind: Kind::Table, columns, must_match: false });
                    if !is_large {
                        plan.small_tables.push(name);
                    }
                }
                // A partial index.
                "index" if sql.contains("WHERE") => return Ok(None),
                "index" => {
                    plan.trees.push(Tree { root, kind: Kind::Index, columns: None, must_match: is_large });
                }
                _ => return Ok(None),
            }
        }
        Ok((plan.trees.len() <= TREES_LIMIT).then_some(plan))
    }
}

/// The columns of the large table, if all are of the usual kind.
fn columns(conn: &Connection) -> Result<Option<Vec<Column>>, Fault> {
    let mut statement = conn
        .prepare(&format!("SELECT type, \"notnull\", pk, hidden FROM pragma_table_xinfo('{LARGE_TABLE}')"))?;
    let mut rows = statement.query([])?;
    let mut columns = Vec::new();
    while let Some(row) = rows.next()? {
        let declared: String = row.get(0)?;
        let [not_null, key, hidden] = [row.get::<_, i64>(1)?, row.get(2)?, row.get(3)?];
        columns.push(match (declared.as_str(), key) {
            _ if not_null != 0 || hidden != 0 => return Ok(None),
            ("INTEGER", 1) => Column::RowId,
            ("INTEGER", 0) => Column::Number,
            ("TEXT", 0) => Column::Text,
            _ => return Ok(None),
        });
    }
    Ok((!columns.is_empty()).then_some(columns))
}

/// The table that is large, with its indices; all others are left to SQLite.
const LARGE_TABLE: &str = "object";
/// What a table of a container never says of itself, and would need more of us.
const UNUSUAL: [&str; 6] = ["CHECK", "STRICT", "GENERATED", "WITHOUT", "VIRTUAL", " AS "];
/// More tables and indices than any container has.
const TREES_LIMIT: usize = 64;
