#!/usr/bin/env python3
"""Django's command line."""

import os
import sys

from argus import cli

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "argus.settings")
    if sys.argv[1:2] and sys.argv[1] in cli.COMMANDS:
        os.environ.update(cli.prepare(sys.argv[1], sys.argv[2:], program="manage.py"))
    from django.core.management import execute_from_command_line

    try:
        execute_from_command_line(sys.argv)
    except KeyboardInterrupt:
        sys.exit(130)
