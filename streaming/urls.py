"""The stream's REST addresses."""

from django.urls import path

from streaming.api import StreamTicket

urlpatterns = [path("api/v1/stream/ticket", StreamTicket.as_view(), name="stream-ticket")]
