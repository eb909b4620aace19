-- From Postgres 16 on whoever creates a role is a member that may hand it on and not step down to it. An owner that is no superuser, as on a managed
-- Postgres, gives itself that right. Nested, for older ones do not know what is asked within.
DO $$
BEGIN
  IF current_setting('server_version_num')::int >= 160000 THEN
    IF NOT pg_has_role(current_user, 'mayfly_app', 'SET') THEN
      EXECUTE format('GRANT mayfly_app TO %I', current_user);
    END IF;
  END IF;
END
$$;
