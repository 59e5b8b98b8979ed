ALTER TABLE servers ADD COLUMN without_gap_since TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT clock_timestamp();
