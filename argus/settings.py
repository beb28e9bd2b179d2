"""Django's settings, all derived from ``argus.config``: nothing here reads the environment."""

from __future__ import annotations

import logging
from typing import Any

import dj_database_url
from django.utils.translation import gettext_lazy as _

from argus import secret
from argus.config import ROOT, config
from argus.console import UNFOLD as UNFOLD
from argus.logging import logging_config

SECRET_KEY = config.secret_key or secret.load(config.data_dir)
DEBUG = config.debug
ALLOWED_HOSTS = list(config.allowed_hosts)
CSRF_TRUSTED_ORIGINS = list(config.csrf_origins)

INSTALLED_APPS = [
    "daphne",
    "unfold",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "channels",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "django_structlog",
    "argus",
    "argus.access",
    "marketdata",
    "streaming",
    "monitoring",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "argus.requestlog.RequestMiddleware",
]
ROOT_URLCONF = "argus.urls"
ASGI_APPLICATION = "argus.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [ROOT / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

SQLITE_OPTIONS = {
    "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
    "transaction_mode": "IMMEDIATE",
    "timeout": 20,
}
DATABASES: dict[str, Any]
if config.database_url:
    DATABASES = {"default": dj_database_url.parse(config.database_url, conn_max_age=60, conn_health_checks=True)}
else:
    DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": config.data_dir / "argus.sqlite3"}}
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    DATABASES["default"]["OPTIONS"] = SQLITE_OPTIONS
else:
    # Seconds; PostgreSQL's library would wait for minutes.
    DATABASES["default"].setdefault("OPTIONS", {}).setdefault("connect_timeout", 5)
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# channels_redis: pub/sub, because the core layer drops the newest message when a queue is full, which is wrong for
# quotes. Protocol 2, because redis-py formats every RESP3 push for a debug line; no socket timeout, because it would
# cut idle subscribers off; read a message of the whole market in 11 turns of the loop instead of 42.
CACHES: dict[str, Any]
# Seconds for one call to Redis, where somebody waits for it: a Redis that hangs must not hold a request beyond its deadline.
REDIS_TIMEOUTS = {"socket_timeout": 2.0, "socket_connect_timeout": 1.0}
if config.redis_url:
    CHANNEL_LAYERS = {
        "default": {
            "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
            "CONFIG": {
                "hosts": [
                    {
                        "address": config.redis_url,
                        "protocol": 2,
                        "socket_timeout": None,
                        "socket_read_size": 256 * 1024,
                        "max_connections": 1000,
                    }
                ]
            },
        }
    }
    CACHES = {
        "default": {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": config.redis_url,
            "OPTIONS": REDIS_TIMEOUTS,
        }
    }
else:
    CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer", "CONFIG": {"capacity": 10_000}}}
    # 300 entries, the default, would let a burst of stream tickets evict a feed's snapshot; each connection has one, its session.
    CACHES = {
        "default": {
            "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
            "LOCATION": "argus",
            "OPTIONS": {"MAX_ENTRIES": 100_000},
        }
    }

LANGUAGE_CODE = "zh-hans"
LANGUAGES = [("zh-hans", _("Simplified Chinese")), ("en", _("English"))]
LOCALE_PATHS = [ROOT / "argus" / "locale"]
USE_I18N = True
TIME_ZONE = "Asia/Shanghai"
USE_TZ = True

STATIC_URL = "static/"
STATICFILES_DIRS = [ROOT / "static"]
WHITENOISE_USE_FINDERS = True

LOGIN_REDIRECT_URL = "admin:index"

X_FRAME_OPTIONS = "SAMEORIGIN"
SESSION_COOKIE_HTTPONLY = True
SECURE_CONTENT_TYPE_NOSNIFF = True

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["argus.access.drf.KeyAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["argus.access.drf.ReadScope"],
    "DEFAULT_THROTTLE_CLASSES": ["argus.access.drf.PlanQuota"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["argus.access.drf.JsonBody"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "argus.access.drf.problem_response",
    "UNAUTHENTICATED_USER": None,
    # A parameter like all others: where it is not known it is refused by its name, and not a 404.
    "URL_FORMAT_OVERRIDE": None,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Argus",
    "DESCRIPTION": _("Market data from QMT terminals, for everything else."),
    "VERSION": "1",
    "OAS_VERSION": "3.1.0",
    "SERVE_INCLUDE_SCHEMA": False,
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "marketdata.api.schema.add_components",
        "marketdata.api.reference_schema.add_components",
        "marketdata.api.history_schema.add_components",
        "marketdata.api.pools_schema.add_components",
    ],
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "",  # The page has ours; the default is on somebody else's server.
}
CELERY_TIMEZONE = TIME_ZONE
CELERY_BROKER_URL = config.redis_url or "memory://localhost"
CELERY_RESULT_BACKEND = config.redis_url or "cache+memory://"
# memory:// looks for work once a second unless told otherwise.
CELERY_BROKER_TRANSPORT_OPTIONS = REDIS_TIMEOUTS if config.redis_url else {"polling_interval": 0.05}
CELERY_REDIS_SOCKET_TIMEOUT = REDIS_TIMEOUTS["socket_timeout"]
CELERY_REDIS_SOCKET_CONNECT_TIMEOUT = REDIS_TIMEOUTS["socket_connect_timeout"]
# Celery would try for twenty seconds, and keep everybody waiting who asks meanwhile. What is lost is asked for again.
CELERY_TASK_PUBLISH_RETRY_POLICY = {"max_retries": 1, "interval_start": 0, "interval_step": 0.1, "interval_max": 0.1}
CELERY_RESULT_BACKEND_TRANSPORT_OPTIONS = {"retry_policy": CELERY_TASK_PUBLISH_RETRY_POLICY} if config.redis_url else {}
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_TASK_IGNORE_RESULT = True
# Seconds; whoever waits for a result does so for a minute at most.
CELERY_RESULT_EXPIRES = 600
CELERY_TASK_DEFAULT_QUEUE = "argus"
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_WORKER_POOL = "threads"
# Threads are made as they are needed. Per terminal there is a poll, a refresh of the reference data, which takes a minute, and as
# many requests as the terminal stands: a poll must not wait for them. Beside those a backfill. (Celery's default is the number
# of processors.)
CELERY_WORKER_CONCURRENCY = 64
CELERY_BEAT_SCHEDULER = "marketdata.terminals.beat:RosterScheduler"
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
DJANGO_STRUCTLOG_CELERY_ENABLED = True
# One line for a request, not two, and none for a poll that went well: at one a second these would be most of the log.
DJANGO_STRUCTLOG_STATUS_START_LOG_LEVEL = logging.DEBUG
DJANGO_STRUCTLOG_CELERY_DEFAULT_LOG_LEVEL = logging.DEBUG
DJANGO_STRUCTLOG_CELERY_TASK_FAILURE_LOG_LEVEL = logging.ERROR
DJANGO_STRUCTLOG_IP_LOGGING_ENABLED = False
# argus.requestid has put the id there, its own or a caller's that it has checked.
DJANGO_STRUCTLOG_TRUST_UPSTREAM_REQUEST_ID = True

LOGGING_CONFIG = "argus.logging.configure"
LOGGING = logging_config(config)
