"""Authors and their books."""

from django.db import models


class Author(models.Model):
    name = models.CharField(max_length=100, unique=True)
    born = models.DateField(null=True)


class Book(models.Model):
    author = models.ForeignKey(Author, on_delete=models.CASCADE, related_name="books")
    title = models.TextField(db_index=True)
    about = models.JSONField(default=dict)
    lent = models.DateTimeField(null=True)
    copies = models.IntegerField(default=1)

    class Meta:
        constraints = [
            models.CheckConstraint(condition=models.Q(copies__gte=0), name="copies_are_there")
        ]
