package mysqld

import (
	"context"
	"database/sql"
	"fmt"
	"strconv"
	"strings"
)

// querier is what statements are sent through: the pool, or one connection of
// it where several statements must share a session.
type querier interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

var (
	_ querier = (*sql.DB)(nil)
	_ querier = (*sql.Conn)(nil)
)

// record is one row by column name. NULL columns are absent, so that a missing
// column of an older server reads like NULL: as the zero value.
type record map[string]string

// yes reports whether a column says ON, YES or 1 in any case.
func (r record) yes(column string) bool {
	switch strings.ToUpper(r[column]) {
	case "ON", "YES", "1":
		return true
	}
	return false
}

// number reads an unsigned column; anything else reads as 0.
func (r record) number(column string) uint64 {
	n, err := strconv.ParseUint(r[column], 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// execute runs statements one after the other and stops at the first error, which
// names the statement with its arguments left out (they may be passwords).
func execute(ctx context.Context, q querier, statements ...string) error {
	for _, statement := range statements {
		if err := execArgs(ctx, q, statement); err != nil {
			return err
		}
	}
	return nil
}

// execArgs runs one statement with arguments.
func execArgs(ctx context.Context, q querier, statement string, args ...any) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	if _, err := q.ExecContext(ctx, statement, args...); err != nil {
		return fmt.Errorf("executing %q: %w", statement, err)
	}
	return nil
}

// rows runs a query and returns all its rows.
func rows(ctx context.Context, q querier, query string, args ...any) ([]record, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	found, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("querying %q: %w", query, err)
	}
	defer found.Close()
	columns, err := found.Columns()
	if err != nil {
		return nil, fmt.Errorf("querying %q: %w", query, err)
	}
	var out []record
	values := make([]sql.NullString, len(columns))
	targets := make([]any, len(columns))
	for i := range values {
		targets[i] = &values[i]
	}
	for found.Next() {
		if err := found.Scan(targets...); err != nil {
			return nil, fmt.Errorf("reading the answer to %q: %w", query, err)
		}
		r := make(record, len(columns))
		for i, v := range values {
			if v.Valid {
				r[columns[i]] = v.String
			}
		}
		out = append(out, r)
	}
	if err := found.Err(); err != nil {
		return nil, fmt.Errorf("reading the answer to %q: %w", query, err)
	}
	return out, nil
}

// row runs a query and returns its first row, nil if there is none.
func row(ctx context.Context, q querier, query string, args ...any) (record, error) {
	all, err := rows(ctx, q, query, args...)
	if err != nil || len(all) == 0 {
		return nil, err
	}
	return all[0], nil
}

// named runs a SHOW STATUS or SHOW VARIABLES query and returns value by name.
func named(ctx context.Context, q querier, query string) (record, error) {
	all, err := rows(ctx, q, query)
	if err != nil {
		return nil, err
	}
	out := make(record, len(all))
	for _, r := range all {
		out[strings.ToLower(r["Variable_name"])] = r["Value"]
	}
	return out, nil
}

// quotedList writes names as 'a','b' for an IN clause. They are our constants.
func quotedList(names []string) string { return "'" + strings.Join(names, "','") + "'" }
