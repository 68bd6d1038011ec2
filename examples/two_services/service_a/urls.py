"""The HTTP API of A."""

from django.http import HttpRequest, JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_GET, require_POST

from examples.two_services.messages import Note
from messaging import (
    CallTimeout,
    InvalidCall,
    InvalidMessage,
    MessagingError,
    PublishError,
    RemoteError,
    call,
    publish,
)


@csrf_exempt
@require_POST
def send(request: HttpRequest) -> JsonResponse:
    """Send a note to B, which need not be running."""
    if "Origin" in request.headers:  # a page in a browser; this service has none
        return JsonResponse({"detail": "Pages of browsers send nothing."}, status=403)
    try:
        [message_id] = publish(Note.parse(request.POST.dict(), strict=False))
    except InvalidMessage as error:
        return JsonResponse(error.errors, status=400)
    except PublishError as error:
        return JsonResponse({"detail": str(error)}, status=503)
    return JsonResponse({"status": "sent", "message_id": message_id}, status=202)


@require_GET
def ask(request: HttpRequest) -> JsonResponse:
    """Ask B for its last notes; B must be running."""
    try:
        last = int(request.GET.get("last", "3"))
        answer = call("rpc_test_queue", {"last": last}, timeout=2)
        return JsonResponse(answer, safe=False)
    except (ValueError, InvalidCall) as error:
        return JsonResponse({"detail": str(error)}, status=400)
    except RemoteError as error:
        return JsonResponse({"detail": f"B failed: {error}"}, status=502)
    except CallTimeout as error:
        return JsonResponse({"detail": str(error)}, status=504)
    except MessagingError as error:
        return JsonResponse({"detail": str(error)}, status=503)


urlpatterns = [path("send/", send), path("ask/", ask)]
