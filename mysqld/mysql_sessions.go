package mysqld

import "context"

// mysqlTableLocks are the locks that LOCK TABLES and FLUSH TABLES WITH READ
// LOCK take; of statements only DDL takes such.
const mysqlTableLocks = `SELECT DISTINCT t.PROCESSLIST_ID AS id FROM performance_schema.metadata_locks m
 JOIN performance_schema.threads t ON t.THREAD_ID = m.OWNER_THREAD_ID
 WHERE m.LOCK_STATUS = 'GRANTED' AND t.PROCESSLIST_ID IS NOT NULL AND t.TYPE = 'FOREGROUND'
 AND (m.OBJECT_TYPE = 'TABLE' AND m.LOCK_TYPE IN ('SHARED_READ_ONLY', 'SHARED_NO_WRITE', 'SHARED_NO_READ_WRITE', 'EXCLUSIVE')
  OR m.OBJECT_TYPE = 'GLOBAL' AND m.LOCK_TYPE = 'SHARED')`

func (mysqlDialect) tableLocks(ctx context.Context, q querier) (map[uint64]bool, error) {
	found, err := rows(ctx, q, mysqlTableLocks)
	if err != nil {
		return nil, err
	}
	by := make(map[uint64]bool, len(found))
	for _, r := range found {
		by[r.number("id")] = true
	}
	return by, nil
}
