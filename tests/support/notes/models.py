from django.db import models


class Note(models.Model):
    name = models.CharField(max_length=50, primary_key=True)
    text = models.CharField(max_length=50)
    version = models.IntegerField(default=0)

    class Meta:
        app_label = "notes"

    def __str__(self) -> str:
        return self.name
