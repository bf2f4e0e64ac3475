"""The article's generator, with kafka-python and Faker, ended after a number of events.

    article_producer.py HOST:PORT USERNAME PASSWORD TOPIC COUNT [SECONDS_BETWEEN]

It trusts the system's certificates, as the article's does: SSL_CERT_FILE names others.
"""

import json
import random
import sys
import time
from datetime import datetime

from faker import Faker
from kafka import KafkaProducer

kafka_url, username, password, topic, count, *pause = sys.argv[1:]

producer = KafkaProducer(
    bootstrap_servers=[kafka_url],
    sasl_mechanism="SCRAM-SHA-256",
    security_protocol="SASL_SSL",
    sasl_plain_username=username,
    sasl_plain_password=password,
    value_serializer=lambda v: json.dumps(v).encode("utf-8"),
)

fake = Faker()
pages = [fake.url() for _ in range(100)]
users = [fake.ascii_free_email() for _ in range(1000)]
events = ["click", "scroll", "submit", "download", "focus"]

for _ in range(int(count)):
    event_timestamp = datetime.now().strftime("%Y-%m-%d %H:%M:%S")
    user = random.choice(users)
    page = random.choice(pages)
    event = random.choice(events)
    data = {"event_timestamp": event_timestamp, "user": user, "page": page, "event": event}

    future = producer.send(topic, value=data)
    record_metadata = future.get(timeout=60)
    print(f" [x] Sent {record_metadata}")
    print(f" [x] Payload {data}")
    time.sleep(float(pause[0]) if pause else 0)

producer.close()
