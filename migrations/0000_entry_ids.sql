-- Ids of ledger entries are made here and not by the broker: one statement may end a thousand leases and write an entry for each.
-- A TypeID (ent_ and 26 characters of base 32) over a UUIDv7 whose 12 bits behind the version count up (RFC 9562, 6.2, method 1), so that
-- entries of one statement sort as they were written.
CREATE SEQUENCE entry_order CYCLE;
--> statement-breakpoint
CREATE FUNCTION entry_id() RETURNS text LANGUAGE sql VOLATILE AS $$
  SELECT 'ent_' || string_agg(substr('0123456789abcdefghjkmnpqrstvwxyz', substring(id.bits FROM place * 5 + 1 FOR 5)::int + 1, 1), '' ORDER BY place)
  FROM (
    SELECT B'00'
      || substring((extract(epoch FROM clock_timestamp()) * 1000)::bigint::bit(64) FROM 17)
      || B'0111'
      || (nextval('entry_order') & 4095)::bit(12)
      || substring(('x' || replace(gen_random_uuid()::text, '-', ''))::bit(128) FROM 65) AS bits
    OFFSET 0
  ) AS id, generate_series(0, 25) AS place
$$;
