-- Drops the logins that Vault made and lost: when it is killed, or its request aborted, between making a role and keeping its lease, the role stays
-- in the database, and nobody knows of it. Nobody has its password either, and Postgres refuses it once its VALID UNTIL is over: this clears away the rest.
--   psql -d ledger -f sweep.sql
-- Run by a superuser or by Vault's login, as often as you like. Prints what was dropped, and what could not be and why.
-- What a login made goes with it. What it made in another database of the same cluster keeps its role: run this there as well.
-- Only names made by our username_template (database-config.json), and of these only roles that cannot log in: NOLOGIN, as a revocation leaves a role
-- that cannot be dropped; or over for a minute, so that no clock and no lease that is being renewed can be meant.

-- Nobody else's function is called here, whoever may make some in `public`.
SET search_path = pg_catalog;
-- Who holds a lock on a role, as whoever grants it something does, holds up nothing else for longer.
SET lock_timeout = '5s';

CREATE TEMP TABLE swept AS
  SELECT oid AS id, rolname AS role, rolvaliduntil AS valid_until, 'dropped' AS outcome FROM pg_roles
  WHERE rolname ~ '^mf-.+-[A-Za-z0-9]{8}$' AND rolvaliduntil IS NOT NULL AND NOT rolsuper
    AND (NOT rolcanlogin OR rolvaliduntil < now() - interval '1 minute');

-- VALID UNTIL refuses new sessions and leaves open ones alone. Waits up to ten seconds for each to be gone.
-- And those whose role is gone: one that was being opened at the very moment of a revocation can be left, with no rights but everybody's.
SELECT count(*) FILTER (WHERE pg_terminate_backend(pid, 10000)) AS sessions_ended FROM pg_stat_activity
  WHERE usename IN (SELECT role FROM swept) OR (usesysid <> 0 AND NOT EXISTS (SELECT FROM pg_roles WHERE oid = usesysid));

-- Large objects by themselves, a thousand in a transaction: each takes a place in Postgres' table of locks, and somebody may have made more than it has.
SELECT format('GRANT %1$I TO CURRENT_USER; SELECT %1$L AS role, count(lo_unlink(id)) AS unlinked FROM unnest(%2$L::oid[]) AS id; REVOKE %1$I FROM CURRENT_USER',
    role, array_agg(object))
  FROM (SELECT role, lo.oid AS object, row_number() OVER (PARTITION BY role) / 1000 AS nth FROM swept JOIN pg_largeobject_metadata AS lo ON lomowner = id) AS owned
  GROUP BY role, nth \gexec

DO $$
DECLARE
  one record;
BEGIN
  FOR one IN SELECT role FROM swept LOOP
    BEGIN
      IF EXISTS (SELECT FROM pg_stat_activity WHERE usename = one.role) THEN RAISE 'a session is left'; END IF;
      -- Whose objects one drops, of that role one is a member: until the role is gone in the same breath.
      EXECUTE format('GRANT %1$I TO CURRENT_USER; DROP OWNED BY %1$I; DROP ROLE %1$I', one.role);
    EXCEPTION
      -- Vault was faster.
      WHEN undefined_object THEN NULL;
      WHEN OTHERS THEN UPDATE swept SET outcome = 'kept: ' || SQLERRM WHERE role = one.role;
    END;
  END LOOP;
END
$$;

SELECT role, valid_until, outcome FROM swept ORDER BY role;
DROP TABLE swept;
