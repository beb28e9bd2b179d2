"""The stream's REST addresses."""

from django.urls import path

from streaming.api import StreamGap, StreamTicket

urlpatterns = [
    path("api/v1/stream/ticket", StreamTicket.as_view(), name="stream-ticket"),
    path("api/v1/stream/gap", StreamGap.as_view(), name="stream-gap"),
]
