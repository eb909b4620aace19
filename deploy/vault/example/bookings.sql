-- What the demo database holds: something that is worth a login.
CREATE TABLE bookings AS SELECT id, id * 100 AS cents FROM generate_series(1, 3) AS id;
