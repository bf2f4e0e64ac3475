CREATE SOURCE IF NOT EXISTS user_events (
    event_timestamp TIMESTAMP,
    user VARCHAR,
    page VARCHAR,
    event VARCHAR
) WITH (
    connector='kafka',
    topic='test',
    properties.bootstrap.server='your-host:your-port',
    scan.startup.mode='latest',
    properties.sasl.mechanism='SCRAM-SHA-256',
    properties.security.protocol='SASL_SSL',
    properties.sasl.username='your-username',
    properties.sasl.password='your-password'
) FORMAT PLAIN ENCODE JSON;

CREATE MATERIALIZED VIEW IF NOT EXISTS events_statisics_mv AS
SELECT event, COUNT(*)
FROM
    user_events
GROUP BY event;

CREATE SINK IF NOT EXISTS redis_sink
FROM events_statisics_mv WITH (
    connector = 'redis',
    primary_key = 'event',
    redis.url= 'redis://your-username:your-password@your-host:your-host'
) FORMAT PLAIN ENCODE TEMPLATE (
    force_append_only='true',
    key_format = '{event}',
    value_format = '{count}'
);

SELECT * FROM events_statisics_mv;
