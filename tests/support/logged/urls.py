"""The project's URLs, and a view that fails."""

from django.http import HttpRequest, HttpResponse
from django.urls import path

from project.urls import handler400, handler404, handler500, urlpatterns

__all__ = ["handler400", "handler404", "handler500", "urlpatterns"]


def broken(request: HttpRequest, address: str) -> HttpResponse:
    """Fail with an address in the exception, in a local value and in the URL."""
    raise LookupError(f"No mailbox {address}\n{address} of {request.GET['other']}")


urlpatterns = [path("broken/<str:address>/", broken), *urlpatterns]
