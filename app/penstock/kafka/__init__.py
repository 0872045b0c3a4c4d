"""Kafka clients behind one port; nothing else imports one."""
